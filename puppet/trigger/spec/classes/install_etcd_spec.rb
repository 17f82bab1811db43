# frozen_string_literal: true

RSpec.describe 'trigger::install::etcd' do
  it { is_expected.to compile.with_all_deps }
  it { is_expected.to contain_package('etcd-server').that_comes_before('File[/etc/default/etcd]') }
  it { is_expected.to contain_service('etcd').with('ensure' => 'running', 'enable' => true).that_subscribes_to('File[/etc/default/etcd]') }

  it 'bounds history and size, and listens on loopback only' do
    is_expected.to contain_file('/etc/default/etcd').with_content(<<~ENV)
      # Managed by Puppet (class trigger::install::etcd).
      ETCD_LISTEN_CLIENT_URLS="http://127.0.0.1:2379"
      ETCD_ADVERTISE_CLIENT_URLS="http://127.0.0.1:2379"
      ETCD_AUTO_COMPACTION_MODE="periodic"
      ETCD_AUTO_COMPACTION_RETENTION="1h"
      ETCD_QUOTA_BACKEND_BYTES="2147483648"
    ENV
  end

  context 'with settings of its own' do
    let(:params) do
      { 'client_urls' => ['http://10.0.0.1:2379', 'http://127.0.0.1:2379'], 'compaction_retention' => '30m',
        'quota_bytes' => 16_777_216, 'package_name' => 'etcd', 'service_ensure' => 'stopped', 'service_enable' => false }
    end

    it { is_expected.to contain_package('etcd') }
    it { is_expected.to contain_service('etcd').with('ensure' => 'stopped', 'enable' => false) }

    it 'writes them' do
      is_expected.to contain_file('/etc/default/etcd')
        .with_content(%r{^ETCD_LISTEN_CLIENT_URLS="http://10.0.0.1:2379,http://127.0.0.1:2379"$})
        .with_content(/^ETCD_AUTO_COMPACTION_RETENTION="30m"$/).with_content(/^ETCD_QUOTA_BACKEND_BYTES="16777216"$/)
    end
  end

  context 'with TLS' do
    let(:node) { 'etcd01.example.com' }
    let(:params) { { 'client_urls' => ['https://0.0.0.0:2379'], 'tls' => true } }

    it { is_expected.to compile.with_all_deps }

    it "has the node's certificate, and lets in its CA only" do
      is_expected.to contain_file('/etc/default/etcd').with_content(<<~ENV)
        # Managed by Puppet (class trigger::install::etcd).
        ETCD_LISTEN_CLIENT_URLS="https://0.0.0.0:2379"
        ETCD_ADVERTISE_CLIENT_URLS="https://etcd01.example.com:2379"
        ETCD_AUTO_COMPACTION_MODE="periodic"
        ETCD_AUTO_COMPACTION_RETENTION="1h"
        ETCD_QUOTA_BACKEND_BYTES="2147483648"
        ETCD_CERT_FILE="/etc/etcd/tls/certificate.pem"
        ETCD_KEY_FILE="/etc/etcd/tls/key.pem"
        ETCD_TRUSTED_CA_FILE="/etc/etcd/tls/ca.pem"
        ETCD_CLIENT_CERT_AUTH="true"
      ENV
      is_expected.to contain_file('/etc/etcd/tls/key.pem').with(
        'source' => '/var/lib/puppet/ssl/private_keys/etcd01.example.com.pem', 'owner' => 'etcd', 'mode' => '0400',
        'show_diff' => false, 'backup' => false
      ).that_requires('Package[etcd-server]').that_comes_before('Service[etcd]')
      is_expected.to contain_file('/etc/etcd/tls/ca.pem').with_source('/var/lib/puppet/ssl/certs/ca.pem').that_notifies('Service[etcd]')
    end

    context "from Puppet's own packages" do
      let(:facts) { { 'aio_agent_version' => '8.10.0' } }

      it { is_expected.to contain_file('/etc/etcd/tls/ca.pem').with_source('/etc/puppetlabs/puppet/ssl/certs/ca.pem') }
    end

    context 'with certificates elsewhere' do
      let(:params) { super().merge('ssldir' => '/ssl') }

      it { is_expected.to contain_file('/etc/etcd/tls/certificate.pem').with_source('/ssl/certs/etcd01.example.com.pem') }
    end
  end

  describe 'a cluster with TLS' do
    include Scratch

    let(:node) { 'etcd01.example.com' }
    let(:names) { (1..3).map { |n| "etcd0#{n}.example.com" } }
    let(:ports) do
      servers = Array.new(6) { TCPServer.new('127.0.0.1', 0) }
      servers.map { |server| server.addr[1] }.each_slice(2).to_a.tap { servers.each(&:close) }
    end
    let(:params) do
      { 'client_urls' => ["https://127.0.0.1:#{ports[0][0]}"], 'tls' => true,
        'cluster' => names.zip(ports).to_h { |name, (_, peer)| [name, "https://localhost:#{peer}"] } }
    end

    # The settings of a member as the service has them, with its files in the scratch directory.
    def settings(index)
      text = catalogue.resource('file', '/etc/default/etcd')[:content]
      text = text.gsub('/etc/etcd/tls', scratch).gsub('/var/lib/etcd', "#{scratch}/data#{index}")
      text = text.gsub(/:#{ports[0][0]}"/, ":#{ports[index][0]}\"").gsub(/^(ETCD_NAME=").*"/, "\\1#{names[index]}\"")
      text = text.gsub(/^(ETCD_(?:LISTEN|INITIAL_ADVERTISE)_PEER_URLS=".*:)\d+"/, "\\1#{ports[index][1]}\"")
      text.scan(/^(ETCD_\w+)="(.*)"$/).to_h
    end

    it 'forms, of real members that have these settings' do
      system('openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '1',
             '-subj', '/CN=etcd', '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1', '-keyout', "#{scratch}/key.pem",
             '-out', "#{scratch}/certificate.pem", err: File::NULL)
      FileUtils.cp("#{scratch}/certificate.pem", "#{scratch}/ca.pem")
      log = "#{scratch}/log"
      pids = (0..2).map { |index| Process.spawn(settings(index), 'etcd', %i[out err] => [log, 'a']) }
      client = { 'ETCDCTL_API' => '3', 'ETCDCTL_CACERT' => "#{scratch}/ca.pem", 'ETCDCTL_CERT' => "#{scratch}/certificate.pem",
                 'ETCDCTL_KEY' => "#{scratch}/key.pem", 'ETCDCTL_ENDPOINTS' => "https://127.0.0.1:#{ports[2][0]}" }
      listed = ''
      600.times do
        listed, = Open3.capture2e(client, 'etcdctl', 'member', 'list')
        break if listed.scan(', started,').length == 3

        sleep 0.1
      end
      expect(listed).to include(*names), File.read(log)
      expect(Open3.capture2e(client, 'etcdctl', 'endpoint', 'health').last).to be_success
      stranger = client.reject { |name, _value| name =~ /CERT|KEY/ }.merge('ETCDCTL_CACERT' => "#{scratch}/ca.pem")
      expect(Open3.capture2e(stranger, 'etcdctl', 'endpoint', 'health').last).not_to be_success
    ensure
      pids&.each { |pid| Process.kill('KILL', pid) && Process.wait(pid) }
    end
  end

  context 'on a node that is no member' do
    let(:node) { 'web01.example.com' }
    let(:params) { { 'cluster' => { 'etcd01.example.com' => 'http://etcd01.example.com:2380' } } }

    it { is_expected.to compile.and_raise_error(/web01.example.com is no member of the cluster: etcd01.example.com/) }
  end

  [{ 'tls' => true }, { 'client_urls' => ['https://127.0.0.1:2379'] },
   { 'cluster' => { 'etcd01.example.com' => 'https://etcd01.example.com:2380' } }].each do |mixed|
    context "with #{mixed}" do
      let(:params) { mixed }

      it { is_expected.to compile.and_raise_error(%r{every URL begins with https?://, and not http}) }
    end
  end

  { 'client_urls' => [[], ['http://x"'], ['127.0.0.1:2379'], ['http://::1:2379'], ['http://a'], ['http://a:0']],
    'cluster' => [{ 'a b' => 'http://a:1' }, { 'a' => 'a:1' }], 'cluster_token' => ['', '../x'], 'ssldir' => ['ssl'], 'tls' => ['yes'],
    'compaction_retention' => ['1d', '0h', 1], 'quota_bytes' => [1, '2G'] }.each do |parameter, values|
    values.each do |value|
      context "with #{parameter} => #{value.inspect}" do
        let(:params) { { parameter => value } }

        it { is_expected.to compile.and_raise_error(/parameter '#{parameter}'/) }
      end
    end
  end
end
