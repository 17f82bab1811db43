# What a web server exports, on a balancer.
define member(String $serial) {
  file { "/srv/collected/${trusted['certname']}":
    content => $serial,
  }
}

node /^web/ {
  $serial = strip(file('/srv/serial'))
  @@member { $trusted['certname']:
    serial => $serial,
  }
  trigger { 'refresh load balancers':
    hosts     => split(strip(file('/srv/balancers')), ' '),
    on_change => $serial,
  }
}

node /^lb/ {
  Member <<| |>>
}
