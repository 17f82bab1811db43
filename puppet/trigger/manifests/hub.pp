# @summary The hub: the small server that carries the events of a fleet
#
# One node of a fleet runs it, usually beside the Puppet server. Its settings are arguments of the service,
# so that `trigger::agent` alone owns `/etc/trigger/trigger.toml`. A command such as `trigger hub backup`
# needs the same `--data-dir` where one is set here.
#
# @param listen
#   The address and port to listen on; only loopback, for the hub has no TLS yet
# @param allowed_hosts
#   Other names by which clients may address the hub, such as those of a forwarded port or a proxy
# @param data_dir
#   Where the hub keeps its data; unset, where the program does by itself. The directory above it must exist
# @param service_ensure
#   Whether the hub runs
# @param service_enable
#   Whether the hub starts with the node
#
# @example A hub and an agent on one node
#   include trigger::hub
#   class { 'trigger::agent':
#     backend => 'hub+http://127.0.0.1:8145',
#   }
class trigger::hub (
  Trigger::Listen $listen = '127.0.0.1:8145',
  Array[Trigger::Address] $allowed_hosts = [],
  Optional[Trigger::Path] $data_dir = undef,
  Enum['running', 'stopped'] $service_ensure = 'running',
  Boolean $service_enable = true,
) {
  include trigger

  trigger::unit { 'trigger-hub':
    settings => epp('trigger/trigger-hub.conf.epp', {
        'binary_path'   => $trigger::binary_path,
        'listen'        => $listen,
        'allowed_hosts' => $allowed_hosts.unique,
        'data_dir'      => $data_dir,
    }),
  }

  service { 'trigger-hub':
    ensure    => $service_ensure,
    enable    => $service_enable,
    subscribe => [Class['trigger'], Trigger::Unit['trigger-hub']],
  }

  Class['trigger'] -> Trigger::Unit['trigger-hub']
}
