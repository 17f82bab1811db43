# Applied on deploy01, the node that releases.

$release = $facts['demo_release']
$store   = "${facts['demo_directory']}/store"

exec { "publish release ${release}":
  command => "echo ${release} > ${store}/release",
  unless  => "grep -qx ${release} ${store}/release",
  path    => ['/bin', '/usr/bin'],
  # The trigger is notified only if the exec has run.
  notify  => Trigger['roll out the release'],
}

# The trigger names other nodes and does nothing until it is notified; then Puppet runs there.
trigger { 'roll out the release':
  hosts => ['web01.example.test', 'lb01.example.test', 'lb02.example.test'],
}
