# @summary A minimal etcd for trying Trigger: one member, on this node
#
# Sets what Trigger needs and etcd leaves off: old revisions are compacted, because the database would grow
# without bound otherwise, and the quota is one that a small node can hold. A production cluster deserves a module
# of its own.
#
# @param package_name
#   The package that has the server
# @param client_urls
#   Where etcd listens for clients, and says it does. Without TLS anybody who reaches it may fire
# @param compaction_retention
#   How much history etcd keeps, in etcd's own units `m` and `h`; a watcher that was away for longer reads
#   everything afresh
# @param quota_bytes
#   The database size beyond which etcd refuses writes
# @param service_ensure
#   Whether etcd runs
# @param service_enable
#   Whether etcd starts with the node
#
# @example etcd and an agent on one node
#   include trigger::install::etcd
#   include trigger::watch::etcd
#   Class['trigger::install::etcd'] -> Class['trigger::watch::etcd']
class trigger::install::etcd (
  String[1] $package_name = 'etcd-server',
  Array[Trigger::Url::Http, 1] $client_urls = ['http://127.0.0.1:2379'],
  Pattern[/\A[1-9][0-9]{0,5}[mh]\z/] $compaction_retention = '1h',
  Integer[16777216] $quota_bytes = 2147483648,
  Enum['running', 'stopped'] $service_ensure = 'running',
  Boolean $service_enable = true,
) {
  package { $package_name:
    ensure => installed,
  }

  file { '/etc/default/etcd':
    ensure  => file,
    owner   => 'root',
    group   => 'root',
    mode    => '0644',
    content => epp('trigger/etcd.epp', {
        'client_urls'          => $client_urls,
        'compaction_retention' => $compaction_retention,
        'quota_bytes'          => $quota_bytes,
    }),
    require => Package[$package_name],
  }

  service { 'etcd':
    ensure    => $service_ensure,
    enable    => $service_enable,
    subscribe => File['/etc/default/etcd'],
  }
}
