# @summary The hub: the small server that carries the events of a fleet
#
# One node of a fleet runs it, usually the Puppet server. It speaks TLS with the Puppet certificate of its node, to nodes
# of the same CA only. Its settings are arguments of the service, so that
# `trigger::agent` alone owns `/etc/trigger/trigger.toml`. A command such as `trigger hub backup` needs the same
# `--data-dir` where one is set here.
#
# @param listen
#   The address and port to listen on
# @param tls
#   Whether the hub speaks TLS; unset, wherever other machines reach the address. Only on loopback it can be without
# @param health_listen
#   Loopback address and port where `/healthz` and `/metrics` are answered without a certificate; unset, nowhere
# @param crl_url
#   Where the hub fetches the CA's revocation lists; unset, it has those that Puppet keeps on its node. Puppet 7 never
#   fetches them again, so without this a revoked node stays in
# @param crl_refresh
#   How often it fetches them; a number without a unit is seconds. Unset, hourly
# @param allowed_hosts
#   Without TLS, other names by which clients may address the hub, such as those of a forwarded port or a proxy
# @param data_dir
#   Where the hub keeps its data; unset, where the program does by itself. The directory above it must exist
# @param service_ensure
#   Whether the hub runs
# @param service_enable
#   Whether the hub starts with the node
#
# @example On the Puppet server
#   class { 'trigger::hub':
#     crl_url => 'https://puppet.example.com:8140/puppet-ca/v1/certificate_revocation_list/ca',
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
  Optional[Trigger::Listen::Loopback] $health_listen = undef,
  Optional[Trigger::Url::Https] $crl_url = undef,
  Optional[Trigger::Duration] $crl_refresh = undef,
  Array[Trigger::Address] $allowed_hosts = [],
  Optional[Trigger::Path] $data_dir = undef,
  Enum['running', 'stopped'] $service_ensure = 'running',
  Boolean $service_enable = true,
) {
  include trigger

  if $tls == false and $listen !~ Trigger::Listen::Loopback {
    fail("trigger::hub: other machines reach '${listen}', where the hub has to speak TLS")
  }

  trigger::unit { 'trigger-hub':
    settings => epp('trigger/trigger-hub.conf.epp', {
        'binary_path' => $trigger::binary_path,
        'listen'      => $listen,
        'data_dir'    => $data_dir,
        'flags'       => [
          $tls.then |$value| { "--tls=${value}" },
          $health_listen.then |$value| { "--health-listen ${value}" },
          $crl_url.then |$value| { "--crl-url ${value}" },
          $crl_refresh.then |$value| { "--crl-refresh '${value}'" },
          $allowed_hosts.unique.map |$value| { "--allowed-host ${value}" },
          $data_dir.then |$value| { "--data-dir ${value}" },
        ].flatten.filter |$value| { $value =~ NotUndef },
    }),
  }

  service { 'trigger-hub':
    ensure    => $service_ensure,
    enable    => $service_enable,
    subscribe => [Class['trigger'], Trigger::Unit['trigger-hub']],
  }

  Class['trigger'] -> Trigger::Unit['trigger-hub']
}
