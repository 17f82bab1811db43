# @summary A web server of the shop
#
# @param text
#   What its page says besides its name
# @param aliases
#   Other names of its virtual host
# @param weight
#   Its weight at the balancers
class profile::web (
  String $text = '',
  Array[String[1]] $aliases = [],
  Integer[1, 256] $weight = 100,
) {
  include profile::node

  $fqdn = $facts['networking']['fqdn']
  $page = "this is ${facts['networking']['hostname']}${text}\n"

  class { 'apache':
    default_vhost => false,
    mpm_module    => 'event',
  }
  file { '/var/www/shop':
    ensure => directory,
  }
  -> file { '/var/www/shop/index.html':
    content => $page,
  }
  -> apache::vhost { 'shop':
    servername     => $fqdn,
    serveraliases  => $aliases,
    port           => 80,
    docroot        => '/var/www/shop',
    manage_docroot => false,
    notify         => Trigger['refresh load balancers'],
  }

  # One hash for what is exported and for what fires.
  $member = {
    'listening_service' => 'shop',
    'server_names'      => $facts['networking']['hostname'],
    'ipaddresses'       => $facts['networking']['ip'],
    'ports'             => '80',
    'options'           => "check inter 1s weight ${weight}",
  }
  @@haproxy::balancermember { $fqdn:
    * => $member,
  }

  $balancers = puppetdb_query('resources[certname] { type = "Class" and title = "Profile::Balancer" and nodes { deactivated is null and expired is null } }')
  trigger { 'refresh load balancers':
    hosts     => $balancers.map |$balancer| { $balancer['certname'] },
    on_change => $member,
    require   => Service['httpd'],
  }
}
