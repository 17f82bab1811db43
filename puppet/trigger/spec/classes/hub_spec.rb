# frozen_string_literal: true

RSpec.describe 'trigger::hub' do
  def unit_settings
    catalogue.resource('file', '/etc/systemd/system/trigger-hub.service.d/puppet.conf')[:content]
  end

  def hub_toml
    catalogue.resource('file', '/etc/trigger/hub.toml')[:content]
  end

  context 'by default' do
    it { is_expected.to compile.with_all_deps }
    it { is_expected.to contain_class('trigger') }
    it { expect(unit_settings[/^ExecStart=(.+)$/, 1]).to eq '/usr/bin/trigger hub --config /etc/trigger/hub.toml' }
    it { expect(unit_settings).not_to include('ReadWritePaths') }

    it 'listens everywhere, and leaves the rest to the program' do
      expect(hub_toml).to eq <<~TOML
        # Managed by Puppet (class trigger::hub).

        [hub]
        listen = "0.0.0.0:8145"
        operators = []
        operator_auth_roles = []
        allowed_hosts = []
      TOML
    end

    it 'leaves a hub stopped whose data are gone' do
      is_expected.to contain_file('/etc/systemd/system/trigger-hub.service').with_content(/^RestartPreventExitStatus=5$/)
    end

    it 'runs the service, restarted by whatever it is made of' do
      is_expected.to contain_service('trigger-hub').with('ensure' => 'running', 'enable' => true).that_subscribes_to(
        ['Class[trigger]', 'File[/etc/trigger/hub.toml]', 'Trigger::Unit[trigger-hub]']
      )
    end
  end

  context 'with everything' do
    let(:params) do
      { 'listen' => '[::]:9000', 'tls' => true, 'health_listen' => '127.0.0.1:8146', 'crl_refresh' => '10m',
        'crl_url' => 'https://puppet.example.com:8140/puppet-ca/v1/certificate_revocation_list/ca',
        'operators' => %w[Admin01.example.com admin02 admin02], 'operator_auth_roles' => ['trigger "x"'],
        'operator_cli_auth' => true, 'prefix' => '/site/events', 'allowed_hosts' => ['hub.example.com:9000', '[fe80::1]:1'],
        'data_dir' => '/srv/hub', 'audit_file' => '/srv/log/audit.log',
        'tls_certificate' => '/tls/hub.pem', 'tls_key' => '/tls/hub.key', 'tls_ca' => '/tls/ca.pem', 'tls_crl' => '/tls/crl.pem',
        'service_ensure' => 'stopped', 'service_enable' => false }
    end

    it 'writes all of it, escaped' do
      expect(hub_toml).to eq <<~'TOML'
        # Managed by Puppet (class trigger::hub).
        prefix = "/site/events"

        [hub]
        listen = "[::]:9000"
        tls = true
        health_listen = "127.0.0.1:8146"
        crl_url = "https://puppet.example.com:8140/puppet-ca/v1/certificate_revocation_list/ca"
        crl_refresh = "10m"
        operators = ["Admin01.example.com", "admin02"]
        operator_auth_roles = ["trigger \"x\""]
        operator_cli_auth = true
        allowed_hosts = ["hub.example.com:9000", "[fe80::1]:1"]
        data_dir = "/srv/hub"

        [tls]
        certificate = "/tls/hub.pem"
        key = "/tls/hub.key"
        ca = "/tls/ca.pem"
        crl = "/tls/crl.pem"

        [audit]
        file = "/srv/log/audit.log"
      TOML
    end

    it { expect(RealProgram.objection(hub_toml)).to eq '' }
    it { expect(unit_settings).to include("\nReadWritePaths=/srv /srv/log\n") }

    it { is_expected.to contain_service('trigger-hub').with('ensure' => 'stopped', 'enable' => false) }
  end

  context 'with data directly below the root' do
    let(:params) { { 'data_dir' => '/hub' } }

    it { expect(unit_settings).to include("\nReadWritePaths=/\n") }
  end

  context 'from a package' do
    let(:pre_condition) { "class { 'trigger': install => 'package' }" }

    it { is_expected.to contain_file('/etc/systemd/system/trigger-hub.service').with_ensure('absent') }
    it { is_expected.to contain_package('trigger').that_comes_before('Trigger::Unit[trigger-hub]') }
  end

  context 'with the prefix of the agents in Hiera' do
    let(:hiera_config) { File.expand_path('../fixtures/hiera.yaml', __dir__) }

    it { expect(hub_toml).to include("\nprefix = \"/site/events\"\n") }
  end

  context 'with a certificate and no key' do
    let(:params) { { 'tls_certificate' => '/tls/hub.pem' } }

    it { is_expected.to compile.and_raise_error(/tls_certificate and tls_key belong together/) }
  end

  context 'with another CA and without its revocation lists' do
    let(:params) { { 'tls_ca' => '/tls/ca.pem' } }

    it { is_expected.to compile.and_raise_error(/tls_ca needs tls_crl/) }
  end

  context 'with another CA, without its revocation lists and without TLS' do
    let(:params) { { 'listen' => '127.0.0.1:8145', 'tls_ca' => '/tls/ca.pem' } }

    it { is_expected.to compile.with_all_deps }
  end

  context 'without TLS on an address that other machines reach' do
    let(:params) { { 'listen' => '0.0.0.0:8145', 'tls' => false } }

    it { is_expected.to compile.and_raise_error(/other machines reach '0.0.0.0:8145', where the hub has to speak TLS/) }
  end

  { 'health_listen' => '0.0.0.0:8146', 'crl_url' => 'http://puppet/crl', 'operators' => ['a b'], 'operator_auth_roles' => ['a,b'],
    'operator_cli_auth' => 'yes', 'prefix' => '/', 'data_dir' => 'hub', 'audit_file' => '/a b' }.each do |name, value|
    context "with #{name} => #{value.inspect}" do
      let(:params) { { name => value } }

      it { is_expected.to compile.and_raise_error(/parameter '#{name}'/) }
    end
  end

  context 'beside an agent' do
    let(:params) { { 'listen' => '127.0.0.1:8145' } }
    let(:pre_condition) { "class { 'trigger::agent': backend => 'hub+http://127.0.0.1:8145' }" }

    it { is_expected.to compile.with_all_deps }
    it { is_expected.to contain_service('trigger-agent') }
  end

  ['::1:9000', 'hub.example.com', 'a:0', 'a:1 --evil'].each do |host|
    context "with allowed_hosts => [#{host.inspect}]" do
      let(:params) { { 'allowed_hosts' => [host] } }

      it { is_expected.to compile.and_raise_error(/parameter 'allowed_hosts'/) }
    end
  end

  ['8145', '127.0.0.1', '127.0.0.1:8145 --evil', "x:1\n", '::1:8145:'].each do |listen|
    context "with listen => #{listen.inspect}" do
      let(:params) { { 'listen' => listen } }

      it { is_expected.to compile.and_raise_error(/parameter 'listen'/) }
    end
  end
end
