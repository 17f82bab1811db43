# frozen_string_literal: true

RSpec.describe 'trigger' do
  it { is_expected.to compile.with_all_deps }
  it { is_expected.to have_package_resource_count(0) }
  it { is_expected.to have_file_resource_count(1) }
  it { is_expected.to contain_file('/etc/trigger').with('ensure' => 'directory', 'mode' => '0755') }

  context 'with a package' do
    let(:params) { { 'install' => 'package', 'package_name' => 'trigger-bin' } }

    it { is_expected.to contain_package('trigger-bin').with_ensure('installed') }
    it { is_expected.to have_file_resource_count(1) }
  end

  context 'with a file' do
    let(:params) { { 'install' => 'file', 'source' => 'puppet:///modules/profile/trigger' } }

    it { is_expected.to compile.with_all_deps }
    it { is_expected.to have_package_resource_count(0) }

    it 'copies the program' do
      is_expected.to contain_file('/usr/bin/trigger').with(
        'ensure' => 'file', 'owner' => 'root', 'mode' => '0755', 'source' => 'puppet:///modules/profile/trigger'
      ).without_checksum_value
    end
  end

  context 'with a file elsewhere and its checksum' do
    let(:params) do
      { 'install' => 'file', 'source' => 'https://files.example.com/trigger', 'checksum' => 'A1' * 32,
        'binary_path' => '/opt/trigger/trigger' }
    end

    it 'takes no other file' do
      is_expected.to contain_file('/opt/trigger/trigger').with('checksum' => 'sha256', 'checksum_value' => 'a1' * 32)
    end
  end

  context 'with a file from nowhere' do
    let(:params) { { 'install' => 'file' } }

    it { is_expected.to compile.and_raise_error(/needs a source/) }
  end

  {
    'install' => ['', 'rpm'],
    'source' => ['', 'trigger', 'file', "/a\n/b", 'ftp://x/trigger'],
    'checksum' => ['', 'a1', 'x' * 64],
  }.each do |parameter, values|
    values.each do |value|
      context "with #{parameter} => #{value.inspect}" do
        let(:params) { { parameter => value } }

        it { is_expected.to compile.and_raise_error(/parameter '#{parameter}'/) }
      end
    end
  end
end
