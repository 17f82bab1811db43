# A node without a Puppet server. All nodes of the fleet have the same key, from `trigger keygen`.
class { 'trigger::agent':
  backend    => 'etcd://etcd01.example.com:2379',
  run_cmd    => 'puppet apply /etc/site.pp',
  shared_key => '/etc/trigger/shared.key',
}
