# frozen_string_literal: true

RSpec.describe 'trigger::hub' do
  def exec_start
    settings[/^ExecStart=(.+)$/, 1]
  end

  def settings
    catalogue.resource('file', '/etc/systemd/system/trigger-hub.service.d/puppet.conf')[:content]
  end

  context 'by default' do
    it { is_expected.to compile.with_all_deps }
    it { is_expected.to contain_class('trigger') }
    it { expect(exec_start).to eq '/usr/bin/trigger hub --listen 0.0.0.0:8145' }
    it { expect(settings).not_to include('ReadWritePaths') }

    it 'leaves a hub stopped whose data are gone' do
      is_expected.to contain_file('/etc/systemd/system/trigger-hub.service').with_content(/^RestartPreventExitStatus=5$/)
    end

    it 'runs the service, restarted by whatever it is made of' do
      is_expected.to contain_service('trigger-hub').with('ensure' => 'running', 'enable' => true).that_subscribes_to(
        ['Class[trigger]', 'Trigger::Unit[trigger-hub]']
      )
    end
  end

  context 'with settings of its own' do
    let(:params) do
      { 'listen' => '[::1]:9000', 'allowed_hosts' => ['hub.example.com:9000', '[fe80::1]:1'], 'data_dir' => '/srv/hub',
        'service_ensure' => 'stopped', 'service_enable' => false }
    end

    it 'gives them to the program' do
      expect(exec_start).to eq '/usr/bin/trigger hub --listen [::1]:9000 --allowed-host hub.example.com:9000 ' \
                               '--allowed-host [fe80::1]:1 --data-dir /srv/hub'
    end

    it { expect(settings).to include("\nReadWritePaths=/srv\n") }

    it { is_expected.to contain_service('trigger-hub').with('ensure' => 'stopped', 'enable' => false) }
  end

  context 'with data directly below the root' do
    let(:params) { { 'data_dir' => '/hub' } }

    it { expect(settings).to include("\nReadWritePaths=/\n") }
  end

  context 'from a package' do
    let(:pre_condition) { "class { 'trigger': install => 'package' }" }

    it { is_expected.to contain_file('/etc/systemd/system/trigger-hub.service').with_ensure('absent') }
    it { expect(exec_start).to eq '/usr/bin/trigger hub --listen 0.0.0.0:8145' }
    it { is_expected.to contain_package('trigger').that_comes_before('Trigger::Unit[trigger-hub]') }
  end

  context 'with settings of its TLS' do
    let(:params) do
      { 'listen' => '[::]:9000', 'tls' => true, 'health_listen' => '127.0.0.1:8146', 'crl_refresh' => '10m',
        'crl_url' => 'https://puppet.example.com:8140/puppet-ca/v1/certificate_revocation_list/ca' }
    end

    it 'gives them to the program' do
      expect(exec_start).to eq '/usr/bin/trigger hub --listen [::]:9000 --tls=true --health-listen 127.0.0.1:8146 ' \
                               '--crl-url https://puppet.example.com:8140/puppet-ca/v1/certificate_revocation_list/ca ' \
                               "--crl-refresh '10m'"
    end
  end

  context 'without TLS on an address that other machines reach' do
    let(:params) { { 'listen' => '0.0.0.0:8145', 'tls' => false } }

    it { is_expected.to compile.and_raise_error(/other machines reach '0.0.0.0:8145', where the hub has to speak TLS/) }
  end

  { 'health_listen' => '0.0.0.0:8146', 'crl_url' => 'http://puppet/crl' }.each do |name, value|
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
