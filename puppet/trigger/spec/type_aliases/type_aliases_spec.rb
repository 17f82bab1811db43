# frozen_string_literal: true

{
  'Trigger::Certname' => [
    ['lb01.example.com', 'a', '0', '_x', 'web_1-x.test', 'x' * 255],
    ['', 'lb 01', 'LB01', 'a/b', '..', '-rf', '.hidden', "a\n", 'ä', 'x' * 256],
  ],
  'Trigger::Duration' => [
    %w[1s 90s 30m 12h 1d],
    ['', '0s', '30', 30, '1w', '-1s', '1h30m', "1d\n", '1.5h'],
  ],
  'Trigger::Backend' => [
    ['hub+http://127.0.0.1:8145', 'hub+https://[::1]:8145', 'etcd://a:2379,b:2379', 'etcds://a:2379', 'dummy:'],
    ['', 'hub', 'http://a', 'etcd://', 'etcd:// a', "etcd://a\n", 'xetcd://a', 'dummy'],
  ],
  'Trigger::Keyprefix' => [
    ['/puppet_trigger/events', '/a', "/#{'x' * 254}"],
    ['', '/', 'a', '/a/', '//a', '/a b', "/a\n", "/#{'x' * 255}"],
  ],
  'Trigger::Command' => [
    ['puppet agent', %q(/x "a b" 'c')],
    ['', ' ', "a\nb", "a\u0000"],
  ],
  'Trigger::Path' => [
    ['/usr/bin/trigger', '/a+b.c_d-e'],
    ['', '/', 'a', '/a b', '/a/', '/%i', '/a$b', "/a\n"],
  ],
  'Trigger::Listen' => [
    ['127.0.0.1:8145', '[::1]:8145', 'localhost:1'],
    ['', ':8145', '::1:8145', '127.0.0.1', 'a:b', "a:1\n", 'a:1 b'],
  ],
}.each do |name, (good, bad)|
  RSpec.describe name, type: :type_alias do
    it { is_expected.to allow_values(*good) }

    # One by one, for a list is refused as soon as one of its values is.
    bad.each { |value| it { is_expected.not_to allow_value(value) } }
  end
end
