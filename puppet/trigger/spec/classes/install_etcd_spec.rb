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

  { 'client_urls' => [[], ['http://x"'], ['127.0.0.1:2379'], ['http://::1:2379'], ['http://a'], ['http://a:0']],
    'compaction_retention' => ['1d', '0h', 1], 'quota_bytes' => [1, '2G'] }.each do |parameter, values|
    values.each do |value|
      context "with #{parameter} => #{value.inspect}" do
        let(:params) { { parameter => value } }

        it { is_expected.to compile.and_raise_error(/parameter '#{parameter}'/) }
      end
    end
  end
end
