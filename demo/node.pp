# What every node's own Puppet run applies. Nothing in it knows of Trigger.

$node    = "${facts['demo_directory']}/${trusted['certname']}"
# Read while the catalog is compiled: a run that starts after a release knows it, one in progress does not.
$release = strip(file("${facts['demo_directory']}/store/release"))

file { "${node}/site.conf":
  content => "release ${release}\n",
}

exec { 'restart the service, which takes its time':
  command     => 'sleep 3',
  path        => ['/bin', '/usr/bin'],
  refreshonly => true,
  subscribe   => File["${node}/site.conf"],
}

# The demo's proof that this run was: it believes these lines, not what Trigger says of it.
exec { 'write down that this run was':
  command => "echo \"\$TRIGGER_RUN_ID ${release}\" >> ${node}/runs",
  path    => ['/bin', '/usr/bin'],
  require => Exec['restart the service, which takes its time'],
}
