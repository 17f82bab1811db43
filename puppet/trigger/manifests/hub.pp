# @summary The hub: the small server that carries the events of a fleet
#
# One node of a fleet runs it, usually the Puppet server. It speaks TLS with the Puppet certificate of its node, to nodes
# of the same CA only. Its settings are in `/etc/trigger/hub.toml`, because `/etc/trigger/trigger.toml` belongs to
# `trigger::agent`: a command such as `trigger hub backup` needs `--config /etc/trigger/hub.toml`.
#
# @param listen
#   The address and port to listen on
# @param tls
#   Whether the hub speaks TLS; unset, wherever other machines reach the address. Only on loopback it can be without
# @param tls_certificate
#   The hub's certificate; unset, the Puppet certificate of its node. One with an EC key serves a large fleet sooner
# @param tls_key
#   The private key of that certificate; given together with it
# @param tls_ca
#   The certificates of the CA that nodes have theirs from; unset, those of Puppet's CA
# @param tls_crl
#   The revocation lists of that CA; unset, Puppet's. Needed with `tls_ca`: a hub with TLS does not start without lists
# @param health_listen
#   Loopback address and port where `/healthz` and `/metrics` are answered without a certificate; unset, nowhere
# @param crl_url
#   Where the hub fetches the CA's revocation lists; unset, it has those that Puppet keeps on its node. Puppet 7 never
#   fetches them again, so without this a revoked node stays in
# @param crl_refresh
#   How often it fetches them; a number without a unit is seconds. Unset, hourly
# @param operators
#   The certnames that may read all, and delete what nodes that are gone have left; the hub's own always may
# @param operator_auth_roles
#   The same for certificates with one of these values in the trusted extension `pp_auth_role`
# @param operator_cli_auth
#   Whether the same goes for certificates with the trusted extension `pp_cli_auth`, as that of the Puppet server has it
# @param prefix
#   Where the fleet's keys are kept; unset, as Hiera has it for `trigger::agent::prefix`. The hub serves no other prefix
# @param allowed_hosts
#   Without TLS, other names by which clients may address the hub, such as those of a forwarded port or a proxy
# @param data_dir
#   Where the hub keeps its data; unset, where the program does by itself. The directory above it must exist
# @param audit_file
#   Where the hub keeps its audit, a line of JSON each; its directory is not managed here. Unset, the journal has it
# @param service_ensure
#   Whether the hub runs
# @param service_enable
#   Whether the hub starts with the node
#
# @example On the Puppet server
#   class { 'trigger::hub':
#     crl_url   => 'https://puppet.example.com:8140/puppet-ca/v1/certificate_revocation_list/ca',
#     operators => ['admin01.example.com'],
#   }
#
# @example A hub and an agent on one node, for a trial
#   class { 'trigger::hub':
#     listen => '127.0.0.1:8145',
#   }
#   class { 'trigger::agent':
#     backend => 'hub+http://127.0.0.1:8145',
#   }
class trigger::hub (
  Trigger::Listen $listen = '0.0.0.0:8145',
  Optional[Boolean] $tls = undef,
  Optional[Trigger::Path] $tls_certificate = undef,
  Optional[Trigger::Path] $tls_key = undef,
  Optional[Trigger::Path] $tls_ca = undef,
  Optional[Trigger::Path] $tls_crl = undef,
  Optional[Trigger::Listen::Loopback] $health_listen = undef,
  Optional[Trigger::Url::Https] $crl_url = undef,
  Optional[Trigger::Duration] $crl_refresh = undef,
  Array[Trigger::Certname] $operators = [],
  Array[Trigger::Authrole] $operator_auth_roles = [],
  Optional[Boolean] $operator_cli_auth = undef,
  Optional[Trigger::Keyprefix] $prefix = lookup('trigger::agent::prefix', Optional[Trigger::Keyprefix], 'first', undef),
  Array[Trigger::Address] $allowed_hosts = [],
  Optional[Trigger::Path] $data_dir = undef,
  Optional[Trigger::Path] $audit_file = undef,
  Enum['running', 'stopped'] $service_ensure = 'running',
  Boolean $service_enable = true,
) {
  include trigger

  if $tls == false and $listen !~ Trigger::Listen::Loopback {
    fail("trigger::hub: other machines reach '${listen}', where the hub has to speak TLS")
  }

  if ($tls_certificate =~ Undef) != ($tls_key =~ Undef) {
    fail('trigger::hub: tls_certificate and tls_key belong together: give both or none')
  }

  $speaks_tls = $tls.lest || { $listen !~ Trigger::Listen::Loopback }
  if $speaks_tls and $tls_ca and !$tls_crl {
    fail('trigger::hub: tls_ca needs tls_crl: a hub with TLS does not start without the revocation lists of its CA')
  }

  file { '/etc/trigger/hub.toml':
    ensure  => file,
    owner   => 'root',
    group   => 'root',
    mode    => '0644',
    content => epp('trigger/config.toml.epp', {
        'class_name' => $title,
        'settings'   => { 'prefix' => $prefix },
        'tables'     => {
          'hub'   => {
            'listen'              => $listen,
            'tls'                 => $tls,
            'health_listen'       => $health_listen,
            'crl_url'             => $crl_url,
            'crl_refresh'         => $crl_refresh,
            'operators'           => $operators.unique,
            'operator_auth_roles' => $operator_auth_roles.unique,
            'operator_cli_auth'   => $operator_cli_auth,
            'allowed_hosts'       => $allowed_hosts.unique,
            'data_dir'            => $data_dir,
          },
          'tls'   => {
            'certificate' => $tls_certificate,
            'key'         => $tls_key,
            'ca'          => $tls_ca,
            'crl'         => $tls_crl,
          },
          'audit' => { 'file' => $audit_file },
        },
    }),
  }

  # Both have to be writable: the directory above the data, and that of the audit.
  $directories = [$data_dir, $audit_file].filter |$path| { $path =~ NotUndef }.map |$path| { $path.regsubst('/[^/]+$', '') }
  trigger::unit { 'trigger-hub':
    settings => epp('trigger/trigger-hub.conf.epp', {
        'binary_path' => $trigger::binary_path,
        'writable'    => $directories.map |$path| { $path ? { '' => '/', default => $path } }.unique,
    }),
  }

  service { 'trigger-hub':
    ensure    => $service_ensure,
    enable    => $service_enable,
    subscribe => [Class['trigger'], File['/etc/trigger/hub.toml'], Trigger::Unit['trigger-hub']],
  }

  Class['trigger'] -> [File['/etc/trigger/hub.toml'], Trigger::Unit['trigger-hub']]
}
