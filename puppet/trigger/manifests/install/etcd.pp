# @summary A minimal etcd from the distribution's package: one member, or a cluster of named ones
#
# Sets what Trigger needs and etcd leaves off: old revisions are compacted, because the database would grow without bound
# otherwise, and the quota is one that a small node can hold. For Debian and Ubuntu. Backup, a change of members and access
# by role are left to you.
#
# With `tls` etcd has copies of the node's Puppet certificate and key, which each Puppet run brings up to date, and lets in
# clients and members of Puppet's CA only. It reads no revocation list.
#
# @param package_name
#   The package that has the server
# @param client_urls
#   Where etcd listens for clients: addresses of the node, no names. Without TLS any process that reaches them may fire
# @param tls
#   Whether clients and members speak TLS with the certificates of Puppet's CA
# @param ssldir
#   The directory of Puppet's certificates on the node; unset, that of Puppet's own packages, or else Debian's
# @param cluster
#   The members by their certnames, each with the URL where the others reach it; empty, this node is the only one. Their
#   services start together: the first ones wait until most members are there
# @param cluster_token
#   The name of the cluster, and of its directory below `/var/lib/etcd`
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
#
# @example Each of three members with TLS
#   class { 'trigger::install::etcd':
#     client_urls => ['https://0.0.0.0:2379'],
#     tls         => true,
#     cluster     => {
#       'etcd01.example.com' => 'https://etcd01.example.com:2380',
#       'etcd02.example.com' => 'https://etcd02.example.com:2380',
#       'etcd03.example.com' => 'https://etcd03.example.com:2380',
#     },
#   }
class trigger::install::etcd (
  String[1] $package_name = 'etcd-server',
  Array[Trigger::Url::Http, 1] $client_urls = ['http://127.0.0.1:2379'],
  Boolean $tls = false,
  Optional[Trigger::Path] $ssldir = undef,
  Hash[Trigger::Certname, Trigger::Url::Http] $cluster = {},
  Pattern[/\A[a-z0-9][a-z0-9_-]{0,63}\z/] $cluster_token = 'trigger',
  Pattern[/\A[1-9][0-9]{0,5}[mh]\z/] $compaction_retention = '1h',
  Integer[16777216] $quota_bytes = 2147483648,
  Enum['running', 'stopped'] $service_ensure = 'running',
  Boolean $service_enable = true,
) {
  $certname = $trusted['certname']
  $scheme = $tls ? { true => 'https', default => 'http' }
  $misfit = ($client_urls + $cluster.values).filter |$url| { $url !~ Pattern["\\A${scheme}:"] }
  unless $misfit.empty {
    fail("trigger::install::etcd: with tls => ${tls} every URL begins with ${scheme}://, and not ${misfit[0]}")
  }
  unless $cluster.empty or $certname in $cluster {
    fail("trigger::install::etcd: ${certname} is no member of the cluster: ${cluster.keys.join(', ')}")
  }

  # A certificate has names, and etcd listens on addresses.
  $advertised = $tls ? {
    true    => $client_urls.map |$url| { $url.regsubst('\A(https://).*(:\d+)\z', "\\1${certname}\\2") },
    default => $client_urls,
  }
  # The package starts a single member at once, whose data must not become those of a cluster.
  $members = $cluster.empty ? {
    true    => {},
    default => {
      'NAME'                        => $certname,
      'DATA_DIR'                    => "/var/lib/etcd/${cluster_token}",
      'LISTEN_PEER_URLS'            => String($cluster[$certname]).regsubst('\A(https?://).*(:\d+)\z', '\\10.0.0.0\\2'),
      'INITIAL_ADVERTISE_PEER_URLS' => $cluster[$certname],
      'INITIAL_CLUSTER'             => $cluster.map |$name, $url| { "${name}=${url}" }.join(','),
      'INITIAL_CLUSTER_TOKEN'       => $cluster_token,
    },
  }
  $files = {
    'CERT_FILE'        => '/etc/etcd/tls/certificate.pem',
    'KEY_FILE'         => '/etc/etcd/tls/key.pem',
    'TRUSTED_CA_FILE'  => '/etc/etcd/tls/ca.pem',
    'CLIENT_CERT_AUTH' => 'true',
  }
  $client_tls = $tls ? { true => $files, default => {} }
  $peer_tls = $cluster.empty ? {
    true    => {},
    default => Hash($client_tls.map |$name, $value| { ["PEER_${name}", $value] }),
  }

  package { $package_name:
    ensure => installed,
  }

  file { '/etc/default/etcd':
    ensure  => file,
    owner   => 'root',
    group   => 'root',
    mode    => '0644',
    content => epp('trigger/etcd.epp', {
        'settings' => {
          'LISTEN_CLIENT_URLS'        => $client_urls.join(','),
          'ADVERTISE_CLIENT_URLS'     => $advertised.unique.join(','),
          'AUTO_COMPACTION_MODE'      => 'periodic',
          'AUTO_COMPACTION_RETENTION' => $compaction_retention,
          'QUOTA_BACKEND_BYTES'       => $quota_bytes,
        } + $members + $client_tls + $peer_tls,
    }),
    require => Package[$package_name],
  }

  if $tls {
    $puppets = $ssldir ? {
      undef   => $facts['aio_agent_version'] ? { undef => '/var/lib/puppet/ssl', default => '/etc/puppetlabs/puppet/ssl' },
      default => $ssldir,
    }
    # The package makes the user.
    file {
      default:
        ensure  => file,
        owner   => 'etcd',
        group   => 'etcd',
        mode    => '0400',
        backup  => false,
        require => Package[$package_name],
        before  => Service['etcd'],
        ;
      ['/etc/etcd', '/etc/etcd/tls']:
        ensure => directory,
        mode   => '0755',
        ;
      '/etc/etcd/tls/certificate.pem':
        source => "${puppets}/certs/${certname}.pem",
        ;
      '/etc/etcd/tls/key.pem':
        source    => "${puppets}/private_keys/${certname}.pem",
        show_diff => false,
        ;
      # etcd reads a renewed certificate by itself, and the CA only when it starts.
      '/etc/etcd/tls/ca.pem':
        source => "${puppets}/certs/ca.pem",
        notify => Service['etcd'],
        ;
    }
  }

  service { 'etcd':
    ensure    => $service_ensure,
    enable    => $service_enable,
    subscribe => File['/etc/default/etcd'],
  }
}
