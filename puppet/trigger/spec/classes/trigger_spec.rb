# frozen_string_literal: true

RSpec.describe 'trigger' do
  it { is_expected.to compile.with_all_deps }
  it { is_expected.to have_package_resource_count(0) }

  context 'with a package' do
    let(:params) { { 'package_name' => 'trigger-bin' } }

    it { is_expected.to contain_package('trigger-bin').with_ensure('installed') }
  end
end
