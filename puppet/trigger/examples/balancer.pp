# A load balancer of a fleet with a hub, which only web servers may trigger.
class { 'trigger::agent':
  backend => 'hub+https://puppet.example.com:8145',
  groups  => ['load-balancers'],
  accept  => [
    { 'trigger' => 'refresh*', 'from' => 'web*.example.com' },
  ],
}
