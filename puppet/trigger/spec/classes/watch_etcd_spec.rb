# frozen_string_literal: true

RSpec.describe 'trigger::watch::etcd' do
  it { is_expected.to compile.with_all_deps }
  it { is_expected.to contain_class('trigger::agent').with_backend('etcd://127.0.0.1:2379') }

  it 'leaves what it does not name to the agent' do
    expect(catalogue.resource('class', 'trigger::agent').to_hash.keys).not_to include(:certname, :run_cmd, :prefix)
  end

  context 'with the parameters of the original' do
    let(:params) do
      { 'trigger_hostname' => 'lb01.example.com', 'run_cmd' => 'puppet apply manifest.pp',
        'keyprefix' => '/site/events', 'url' => 'etcd://etcd.example.com:2379' }
    end

    it 'hands them to the agent under its names' do
      is_expected.to contain_class('trigger::agent').with(
        'certname' => 'lb01.example.com', 'run_cmd' => 'puppet apply manifest.pp', 'prefix' => '/site/events',
        'backend' => 'etcd://etcd.example.com:2379'
      )
    end

    it { is_expected.to contain_service('trigger-agent').with_ensure('running') }
  end

  context 'with a hub' do
    let(:params) { { 'url' => 'hub+http://127.0.0.1:8145' } }

    it { is_expected.to compile.and_raise_error(/parameter 'url'/) }
  end
end
