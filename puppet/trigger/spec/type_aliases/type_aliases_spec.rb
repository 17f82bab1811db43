# frozen_string_literal: true

require 'json'

{
  'Trigger::Certname' => [
    ['lb01.example.com', 'LB01.Example.com', 'a', '0', '_x', 'web_1-x.test', 'x' * 255],
    ['', 'lb 01', 'a/b', '..', '-rf', '.hidden', "a\n", 'ä', 'x' * 256],
  ],
  'Trigger::Group' => [
    ['web', 'a', '0', '_x', 'web_1-x.test', 'x' * 255],
    ['', 'a b', 'Web', 'a/b', '..', '-rf', '.hidden', "a\n", 'ä', 'x' * 256],
  ],
  'Trigger::Duration' => [
    ['1s', '90s', '30m', '12h', '1d', '30', 30, 1],
    ['', '0s', 0, -1, 1.5, '007', '1w', '-1s', '1h30m', "1d\n", '1.5h'],
  ],
  'Trigger::Backend' => [
    ['hub+http://127.0.0.1:8145', 'etcd://a:2379,b:2379', 'dummy:'],
    ['', 'hub', 'http://a', 'etcd://', "etcd://a:1\n", 'xetcd://a:1', 'hub+http://[::2]:8145', 'etcds://a'],
  ],
  'Trigger::Backend::Writeonly' => [
    ['dummy:'],
    ['dummy', 'hub+http://127.0.0.1:8145', 'etcd://a:2379'],
  ],
  'Trigger::Address' => [
    ['a:1', 'Hub.example.com:8145', '[::1]:8145', '127.0.0.1:65535'],
    ['', 'a', ':1', '::1:8145', 'a:0', 'a:1/', "a:1\n", 'http://a:1'],
  ],
  'Trigger::Url::Http' => [
    ['http://127.0.0.1:2379', 'https://[::1]:2379', 'http://etcd.example.com:2379'],
    ['', 'a:1', 'http://::1:2379', 'http://a', 'http://a:1/', "http://a:1\n", 'etcd://a:1'],
  ],
  'Trigger::Url::Puppetdb' => [
    ['https://puppetdb.example.com:8081', 'https://puppetdb', 'https://[::1]:8081/pdb'],
    ['', 'http://a:8080', 'puppetdb:8081', "https://a\n", 'https://a/b c'],
  ],
  'Trigger::Keyprefix' => [
    ['/puppet_trigger/events', '/a', "/#{'x' * 254}"],
    ['', '/', 'a', '/a/', '//a', '/a b', "/a\n", "/#{'x' * 255}"],
  ],
  'Trigger::Authrole' => [
    ['trigger', 'Trigger operators'],
    ['', ' ', 'a,b', "a\n"],
  ],
  'Trigger::Command' => [
    ['puppet agent', %q(/x "a b" 'c')],
    ['', ' ', "a\nb", "a\u0000"],
  ],
  'Trigger::Path' => [
    ['/usr/bin/trigger', '/a+b.c_d-e'],
    ['', '/', 'a', '/a b', '/a/', '/%i', '/a$b', "/a\n"],
  ],
  'Trigger::Metricsfile' => [
    ['/var/lib/prometheus/node-exporter/trigger.prom', '/a.prom'],
    ['', 'trigger.prom', '/a', '/a.txt', '/a.prom/', '/a.prom.tmp', '/a b.prom', "/a.prom\n"],
  ],
  'Trigger::Listen' => [
    ['127.0.0.1:8145', '[::1]:8145', 'localhost:1', '127.9.0.255:65535', '0.0.0.0:8145', '[::]:8145', '10.0.0.1:8145',
     '[2001:db8::1]:8145'],
    ['', ':8145', '::1:8145', '127.0.0.1', 'a:b', 'a:1', "127.0.0.1:1\n", '127.0.0.1:1 b', '127.0.0.256:1', '127.0.0.1:0',
     '127.0.0.1:65536', '[::g]:1'],
  ],
  'Trigger::Listen::Loopback' => [
    ['127.0.0.1:8145', '[::1]:8145', 'localhost:1', '127.9.0.255:65535'],
    ['', ':8145', '::1:8145', '127.0.0.1', 'a:b', 'a:1', "127.0.0.1:1\n", '127.0.0.1:1 b', '0.0.0.0:8145', '[::]:8145',
     '10.0.0.1:8145', '127.0.0.256:1', '127.0.0.1:0', '127.0.0.1:65536'],
  ],
  'Trigger::Url::Https' => [
    ['https://puppet.example.com:8140/puppet-ca/v1/certificate_revocation_list/ca', 'https://[::1]/crl', 'https://a/'],
    ['', 'http://a/', 'https://a', 'https:///a', 'https://a/b c', 'https://a/%20', "https://a/\n", 'https://a/$b'],
  ],
}.each do |name, (good, bad)|
  RSpec.describe name, type: :type_alias do
    it { is_expected.to allow_values(*good) }

    # The values are tried one by one, because a list is refused as soon as one of its values is.
    bad.each { |value| it { is_expected.not_to allow_value(value) } }
  end
end

# The values that the program accepts and refuses (crates/trigger/tests/puppet_module.rs), in one catalog to save time.
RSpec.describe 'trigger', type: :class do
  urls = JSON.parse(File.read(File.expand_path('../fixtures/backend_urls.json', __dir__), encoding: 'UTF-8'))

  { 'accepted' => '!~', 'refused' => '=~' }.each do |verdict, mismatch|
    context "with URLs that the program #{verdict}" do
      let(:pre_condition) do
        "$wrong = #{urls[verdict].to_json}.filter |$url| { $url #{mismatch} Trigger::Backend }
         unless $wrong.empty { fail(\"Trigger::Backend differs from the program: ${wrong}\") }"
      end

      it { is_expected.to compile }
    end
  end
end
