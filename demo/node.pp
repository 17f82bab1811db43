# The manifest that every node's own Puppet run applies. It does not mention Trigger.

$node    = "${facts['demo_directory']}/${trusted['certname']}"
# This is read while the catalog is compiled: a run that starts after a release knows it, a run in progress does not.
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

# The demo's proof that this run took place: it checks these lines instead of Trigger's own report.
exec { 'write down that this run was':
  command => "echo \"\$TRIGGER_RUN_ID ${release}\" >> ${node}/runs",
  path    => ['/bin', '/usr/bin'],
  require => Exec['restart the service, which takes its time'],
}
