# frozen_string_literal: true

# The classes and the examples on every system that metadata.json names.
systems = { 'Debian' => %w[12 13], 'Ubuntu' => %w[22.04 24.04], 'RedHat' => %w[8 9], 'Rocky' => %w[8 9], 'AlmaLinux' => %w[8 9] }

RSpec.describe 'metadata.json' do
  it 'names the systems that are tried here' do
    metadata = JSON.parse(File.read(File.expand_path('../../metadata.json', __dir__)))
    named = metadata['operatingsystem_support'].to_h { |os| os.values_at('operatingsystem', 'operatingsystemrelease') }
    expect(named).to eq systems
  end
end

systems.flat_map { |name, releases| releases.map { |release| [name, release] } }.each do |name, release|
  family = %w[Debian Ubuntu].include?(name) ? 'Debian' : 'RedHat'
  system = {
    'os' => { 'name' => name, 'family' => family, 'release' => { 'major' => release, 'full' => release } },
    'networking' => { 'fqdn' => 'etcd01.example.com' },
  }

  RSpec.describe 'etcd01.example.com', type: :host do
    Dir.glob(File.expand_path('../../examples/*.pp', __dir__)).each do |example|
      next if family == 'RedHat' && example.end_with?('/etcd_cluster.pp')

      context "on #{name} #{release} with the example #{File.basename(example)}" do
        let(:facts) { system }
        let(:pre_condition) { File.read(example) }

        it { is_expected.to compile.with_all_deps }
      end
    end

    context "on #{name} #{release} with hub and agent from a package" do
      let(:facts) { system }
      let(:pre_condition) do
        "class { 'trigger': install => 'package' }
         include trigger::hub
         class { 'trigger::agent': backend => 'hub+https://etcd01.example.com:8145' }"
      end

      it { is_expected.to compile.with_all_deps }
      it { is_expected.to contain_service('trigger-agent').that_subscribes_to('File[/etc/trigger/trigger.toml]') }
      it { is_expected.to contain_service('trigger-hub').that_subscribes_to('File[/etc/trigger/hub.toml]') }
    end
  end
end
