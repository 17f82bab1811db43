# frozen_string_literal: true

RSpec.describe 'trigger::puppetdb_url' do
  include Scratch

  # The settings of a server, and what its terminus of PuppetDB has read in puppetdb.conf.
  def server(*urls, backend: 'puppetdb', stores: true)
    allow(Puppet).to receive(:[]).and_call_original
    allow(Puppet).to receive(:[]).with(:storeconfigs).and_return(stores)
    allow(Puppet).to receive(:[]).with(:storeconfigs_backend).and_return(backend)
    config = double(server_urls: urls.map { |url| URI(url) })
    stub_const('Puppet::Util::Puppetdb', double(config: config))
    terminus = File.join(scratch, 'puppet/util/puppetdb.rb')
    FileUtils.mkdir_p(File.dirname(terminus))
    File.write(terminus, '')
  end

  around do |example|
    $LOAD_PATH.unshift(scratch)
    example.run
  ensure
    $LOAD_PATH.delete(scratch)
    $LOADED_FEATURES.reject! { |file| file.end_with?('/puppet/util/puppetdb.rb') }
  end

  it 'is the first address' do
    server('https://puppetdb.example.com:8081', 'https://second.example.com:8081')
    is_expected.to run.and_return('https://puppetdb.example.com:8081')
  end

  ['https://localhost:8081', 'https://127.0.0.1:8081', 'https://[::1]:8081'].each do |url|
    it("is nothing for #{url}, which is another machine elsewhere") do
      server(url)
      is_expected.to run.and_return(nil)
    end
  end

  it 'is nothing where catalogs are stored elsewhere or nowhere' do
    server('https://puppetdb.example.com:8081', backend: 'other')
    is_expected.to run.and_return(nil)
    server('https://puppetdb.example.com:8081', stores: false)
    is_expected.to run.and_return(nil)
  end

  it 'is nothing without the terminus' do
    server
    FileUtils.rm_r(File.join(scratch, 'puppet'))
    is_expected.to run.and_return(nil)
  end
end
