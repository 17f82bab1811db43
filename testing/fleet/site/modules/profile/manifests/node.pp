# @summary What every node has: the repository of the package, and the agent
#
# @param accept
#   The rules of the node's policy, after that of the operator's machine
# @param backend
#   Where events are carried
# @param etcd
#   The node that has an etcd
class profile::node (
  Array $accept = [],
  String[1] $backend = 'hub+https://puppet.example.com:8145',
  Optional[String[1]] $etcd = undef,
) {
  file { '/etc/apt/keyrings':
    ensure => directory,
  }
  -> file { '/etc/apt/keyrings/trigger.asc':
    content => file('profile/trigger.asc'),
  }
  -> file { '/etc/apt/sources.list.d/trigger.sources':
    content => @(SOURCES),
      Types: deb
      URIs: http://puppet.example.com:8000
      Suites: stable
      Components: main
      Signed-By: /etc/apt/keyrings/trigger.asc
      | SOURCES
  }
  # The test's own repository only: the machines have all else.
  ~> exec { '/usr/bin/apt-get update -o Dir::Etc::sourcelist=/etc/apt/sources.list.d/trigger.sources -o Dir::Etc::sourceparts=-':
    refreshonly => true,
  }
  -> Class['trigger']

  # The lists of before do not have a version that came later.
  $version = lookup('trigger::package_ensure', String, 'first', 'installed')
  unless $version == 'installed' {
    exec { "lists with ${version}":
      command => '/usr/bin/apt-get update -o Dir::Etc::sourcelist=/etc/apt/sources.list.d/trigger.sources -o Dir::Etc::sourceparts=-',
      unless  => "/usr/bin/apt-cache madison trigger | /usr/bin/grep -qF ' ${version} '",
      require => File['/etc/apt/sources.list.d/trigger.sources'],
      before  => Class['trigger'],
    }
  }

  if $etcd == $trusted['certname'] {
    class { 'trigger::install::etcd':
      client_urls => ['https://0.0.0.0:2379'],
      tls         => true,
    }
    -> Class['trigger::agent']
  }

  class { 'trigger::agent':
    backend    => $backend,
    audit_file => '/var/log/trigger/audit.log',
    accept     => [{ 'from' => 'puppet.example.com' }] + $accept,
  }
}
