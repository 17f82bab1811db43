# A web server of a fleet with a hub: a change of its site, and of what the balancers need to know of it, runs Puppet there.
class { 'trigger::agent':
  backend => 'hub+https://puppet.example.com:8145',
}

$member = {
  'name'  => $facts['networking']['fqdn'],
  'ports' => [80, 443],
}

trigger { 'refresh load balancers':
  groups    => ['load-balancers'],
  on_change => $member,
}

file { '/etc/motd':
  content => "A web server, known to its balancers as ${member['name']}.\n",
  notify  => Trigger['refresh load balancers'],
}
