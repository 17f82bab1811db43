# What every machine of the demo's fleet applies: puppet apply /etc/puppet/site.pp

# Where a web server leaves what the balancers have to know of it. The machines of the demo share this directory; a
# fleet with PuppetDB exports and collects a resource.
$shared = '/srv/shared'

node /^web/ {
  # How much of the load this web server takes: a fact of its own, from /etc/facter/facts.d/weight.txt.
  $weight = $facts['weight']

  file { "${shared}/${trusted['certname']}":
    content => "    server ${trusted['certname']} ${trusted['certname']}:80 check weight ${weight}\n",
    notify  => Trigger['refresh load balancers'],
  }

  # It names other nodes and does nothing until it is notified; then Puppet runs there.
  trigger { 'refresh load balancers':
    hosts => ['lb01.example.com', 'lb02.example.com'],
  }
}

node /^lb/ {
  # Read when a run begins: one that starts after the notify knows what the web server has left.
  $servers = generate('/bin/sh', '-c', "cat ${shared}/* 2>/dev/null || true")

  file { '/etc/haproxy':
    ensure => directory,
  }
  file { '/etc/haproxy/haproxy.cfg':
    content => "listen shop\n    bind :80\n${servers}",
  }
}
