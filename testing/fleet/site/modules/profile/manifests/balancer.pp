# @summary A load balancer, which collects what the web servers export, and runs Puppet when one of them says so
#
class profile::balancer {
  class { 'profile::node':
    # The role is in the certificate of the web server that has signed the event.
    accept => [{ 'trigger' => 'refresh*', 'extensions' => { 'pp_role' => 'web' } }],
  }

  class { 'haproxy':
    global_options   => { 'maxconn' => '100', 'user' => 'haproxy', 'group' => 'haproxy' },
    defaults_options => {
      'mode'    => 'http',
      'option'  => ['redispatch'],
      'retries' => '3',
      'timeout' => ['connect 1s', 'client 10s', 'server 10s'],
    },
  }
  # It collects the exported members of the shop.
  haproxy::listen { 'shop':
    ipaddress => '0.0.0.0',
    ports     => '80',
    options   => { 'balance' => 'roundrobin' },
  }
}
