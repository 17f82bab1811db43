# frozen_string_literal: true

RSpec.describe 'trigger::agent' do
  let(:params) { { 'backend' => 'hub+http://127.0.0.1:8145' } }

  def file(path)
    catalogue.resource('file', path)[:content]
  end

  context 'with a backend only' do
    it { is_expected.to compile.with_all_deps }
    it { is_expected.to contain_class('trigger') }
    it { is_expected.to contain_file('/etc/trigger').with('ensure' => 'directory', 'mode' => '0755') }
    it { is_expected.to have_package_resource_count(0) }

    it 'configures that, and leaves the rest to the program' do
      expect(file('/etc/trigger/trigger.toml')).to eq <<~TOML
        # Managed by Puppet (class trigger::agent).
        backend = "hub+http://127.0.0.1:8145"
        groups = []

        [socket]
        groups = []

        [operators]
        certnames = []
        auth_roles = []
      TOML
    end

    it 'runs the service, restarted by whatever it is made of' do
      is_expected.to contain_service('trigger-agent').with('ensure' => 'running', 'enable' => true).that_subscribes_to(
        ['Class[trigger]', 'File[/etc/trigger/trigger.toml]', 'Trigger::Unit[trigger-agent]']
      )
    end

    it 'lets a run in progress outlive the service' do
      unit = file('/etc/systemd/system/trigger-agent.service').lines(chomp: true).grep_v(/\A#/)
      expect(unit).to include(
        'Type=notify', 'KillMode=process', 'Restart=always', 'ExecReload=/bin/kill -HUP $MAINPID',
        'OOMPolicy=continue', 'StartLimitIntervalSec=0',
        'ExecStart=/usr/bin/trigger agent --config /etc/trigger/trigger.toml'
      )
      expect(unit.grep(/RuntimeDirectory/)).to eq []
      expect(unit.grep(/\AEnvironment=PATH=/).first.split('=').last.split(':')).to include('/opt/puppetlabs/bin', '/usr/bin')
    end
  end

  context 'with everything' do
    let(:params) do
      {
        'backend' => 'etcd://a.example.com:2379,b.example.com:2379', 'certname' => 'WEB01.example.com',
        'groups' => %w[web shop web], 'run_cmd' => %q(puppet apply "/etc/my site.pp" --tags 'a\b'),
        'run_timeout' => '2h', 'runs_per_minute' => 30, 'settle' => '30s', 'puppetdb_url' => 'https://puppetdb.example.com:8081',
        'metrics_file' => '/var/lib/prometheus/node-exporter/trigger.prom', 'state_dir' => '/srv/trigger', 'prefix' => '/site/events',
        'require_signature' => false, 'shared_key' => '/etc/trigger/fleet.key',
        'backends' => { 'hub' => { 'url' => 'hub+https://hub.example.com:8145' } },
        'tls_certificate' => '/tls/web01.pem', 'tls_key' => '/tls/web01.key', 'tls_ca' => '/tls/ca.pem', 'tls_crl' => '/tls/crl.pem',
        'accept' => [
          { 'trigger' => 'a "b"*', 'from' => ['web*'], 'noop' => 'only', 'tags' => %w[x y], 'environment' => 'test_*' },
          { 'extensions' => { 'pp_role' => 'web', '1.3.6.1.4.1.34380.1.2.1' => %w[a b] }, 'deny' => true }, {}
        ],
        'log_operators' => false, 'log_readers' => %w[ops*.example.com admin01 admin01],
        'socket_groups' => %w[adm wheel adm], 'operators' => %w[ops01 ops01],
        'operator_auth_roles' => ['trigger'], 'operator_cli_auth' => true, 'audit_file' => '/var/log/trigger/audit.log',
        'service_ensure' => 'stopped', 'service_enable' => false
      }
    end

    it 'writes all of it, in order and escaped' do
      expect(file('/etc/trigger/trigger.toml')).to eq <<~'TOML'
        # Managed by Puppet (class trigger::agent).
        backend = "etcd://a.example.com:2379,b.example.com:2379"
        certname = "web01.example.com"
        state_dir = "/srv/trigger"
        prefix = "/site/events"
        groups = ["web", "shop"]
        run_cmd = "puppet apply \"/etc/my site.pp\" --tags 'a\\b'"
        run_timeout = "2h"
        runs_per_minute = 30
        settle = "30s"
        metrics_file = "/var/lib/prometheus/node-exporter/trigger.prom"
        require_signature = false
        shared_key = "/etc/trigger/fleet.key"

        [puppetdb]
        url = "https://puppetdb.example.com:8081"

        [socket]
        groups = ["adm", "wheel"]

        [log]
        operators = false
        readers = ["ops*.example.com", "admin01"]

        [operators]
        certnames = ["ops01"]
        auth_roles = ["trigger"]
        cli_auth = true

        [audit]
        file = "/var/log/trigger/audit.log"

        [tls]
        certificate = "/tls/web01.pem"
        key = "/tls/web01.key"
        ca = "/tls/ca.pem"
        crl = "/tls/crl.pem"

        [backends]
        hub = { "url" = "hub+https://hub.example.com:8145" }

        [[accept]]
        trigger = "a \"b\"*"
        from = ["web*"]
        noop = "only"
        tags = ["x", "y"]
        environment = "test_*"

        [[accept]]
        extensions = { "pp_role" = "web", "1.3.6.1.4.1.34380.1.2.1" = ["a", "b"] }
        deny = true

        [[accept]]
      TOML
    end

    it { expect(RealProgram.objection(file('/etc/trigger/trigger.toml'))).to eq '' }
    it { is_expected.to contain_service('trigger-agent').with('ensure' => 'stopped', 'enable' => false) }
  end

  context 'with groups and backends on two levels of Hiera' do
    let(:params) { {} }
    let(:hiera_config) { File.expand_path('../fixtures/hiera.yaml', __dir__) }

    it 'adds them up' do
      expect(file('/etc/trigger/trigger.toml')).to match(/^groups = \["web", "everyone"\]$.*^etcd = .*^hub = /m)
    end
  end

  context 'with a certificate and no key' do
    let(:params) { { 'backend' => 'hub+https://a:1', 'tls_certificate' => '/tls/web01.pem' } }

    it { is_expected.to compile.and_raise_error(/tls_certificate and tls_key belong together/) }
  end

  context 'with a timeout in seconds' do
    let(:params) { { 'backend' => 'etcd://a:1', 'run_timeout' => 90 } }

    it { expect(file('/etc/trigger/trigger.toml')).to include("run_timeout = 90\n") }
  end

  context 'with a package and a program elsewhere' do
    let(:pre_condition) do
      "class { 'trigger': install => 'package', package_ensure => 'latest', binary_path => '/opt/trigger/trigger' }"
    end
    let(:settings) { '/etc/systemd/system/trigger-agent.service.d/puppet.conf' }

    it { is_expected.to contain_package('trigger').with_ensure('latest').that_notifies('Service[trigger-agent]') }
    it { is_expected.to contain_file(settings).with_content(%r{^ExecStart=\nExecStart=/opt/trigger/trigger agent }) }
  end

  context "with install => 'package'" do
    let(:params) { super().merge('install' => 'package') }

    it { is_expected.to compile.with_all_deps }
    it { is_expected.to contain_package('trigger').with_ensure('installed').that_comes_before('File[/etc/trigger/trigger.toml]') }
    it { is_expected.to contain_file('/etc/systemd/system/trigger-agent.service').with_ensure('absent') }
    it { is_expected.to contain_file('/etc/systemd/system/trigger-agent.service.d/puppet.conf').with_ensure('absent') }
  end

  context "with install => 'none'" do
    let(:params) { super().merge('install' => 'none') }

    it { is_expected.to have_package_resource_count(0) }
    it { is_expected.to contain_file('/etc/systemd/system/trigger-agent.service').with_ensure('file') }
  end

  context 'with the way of installing of a class that is declared already' do
    let(:pre_condition) { "class { 'trigger': install => 'package' }" }
    let(:params) { super().merge('install' => 'package') }

    it { is_expected.to compile.with_all_deps }
  end

  context 'with another way of installing than a class that is declared already' do
    let(:pre_condition) { 'include trigger::hub' }
    let(:params) { super().merge('install' => 'package') }

    it { is_expected.to compile.and_raise_error(/the class trigger has 'none' already: set trigger::install in Hiera/) }
  end

  {
    'backend' => [
      '', 'http://x', 'etcd:', "etcd://a:1\n", 'redis://x', 'dummy', 'etcds://a', 'hub+http://a:8145', 'hub+http://::1:1'
    ],
    'install' => ['', 'deb', true],
    'certname' => ['a b', ''],
    'groups' => [['Web'], 'web'],
    'run_cmd' => ['', '  ', "a\nb", %w[a b]],
    'run_timeout' => ['2w', 0, -2, '1w', '0s'],
    'runs_per_minute' => [0, 601, '10', 1.5],
    'settle' => [-1, '0s', '1w'], 'puppetdb_url' => ['http://puppetdb:8080', 'puppetdb', ''],
    'metrics_file' => ['trigger.prom', '', '/a/trigger.txt'],
    'tls_ca' => ['ca.pem', ''],
    'require_signature' => ['false', 0], 'shared_key' => ['fleet.key', ''],
    'state_dir' => ['relative', '/a b', '/', '/%n'],
    'prefix' => ['/', 'a', '/a/'],
    'accept' => [
      [{ 'form' => 'a' }], [{ 'from' => [] }], [{ 'from' => "a\n" }], [{ 'deny' => false }], [{ 'deny' => true, 'noop' => 'only' }],
      [{ 'noop' => true }], [{ 'environment' => [] }], [{ 'extensions' => { 'role' => 'web' } }]
    ],
    'socket_groups' => [['a b'], [''], 'adm'],
    'operators' => [['a b'], 'ops01'], 'operator_auth_roles' => [['a,b']], 'operator_cli_auth' => ['yes'],
    'audit_file' => ['audit.log', '/a b'],
    'log_operators' => ['true'], 'log_readers' => [[], ['a b'], ['a/b'], 'ops01'],
    'backends' => [
      { 'nats' => { 'url' => 'nats://x' } }, { 'hub' => { 'url' => 'etcd://x:1' } }, { 'hub' => { 'url' => 'hub+http://a:8145' } },
      { 'hub' => {} }
    ]
  }.each do |parameter, values|
    values.each do |value|
      context "with #{parameter} => #{value.inspect}" do
        let(:params) { { 'backend' => 'dummy:', parameter => value } }

        it { is_expected.to compile.and_raise_error(/parameter '#{parameter}'/) }
      end
    end
  end

  context 'with a backend that no agent can run on' do
    let(:params) { { 'backend' => 'dummy:' } }

    it { is_expected.to compile.and_raise_error(/'dummy:' only takes events, so that no agent can run on it/) }
  end

  context 'with a backend that no agent can run on, and no agent' do
    let(:params) { { 'backend' => 'dummy:', 'service_ensure' => 'stopped' } }

    it { is_expected.to compile.with_all_deps }
  end
end
