# @summary Runs Puppet on this node when another node asks for it through etcd
#
# The class of the original proof of concept, kept for its manifests: a front of `trigger::agent`, which has
# more settings. Those it does not name here are taken from Hiera, as `trigger::agent::…`.
#
# @param trigger_hostname
#   The node's certname; unset, the agent asks Puppet
# @param run_cmd
#   What runs when an event arrives; unset, a `puppet agent` run
# @param keyprefix
#   Where in etcd the fleet's keys are kept
# @param url
#   The etcd cluster
#
# @example A node without a Puppet server that converges when others ask
#   class { 'trigger::watch::etcd':
#     run_cmd => 'puppet apply /etc/site.pp',
#   }
class trigger::watch::etcd (
  Optional[Trigger::Certname] $trigger_hostname = undef,
  Optional[Trigger::Command] $run_cmd = undef,
  Optional[Trigger::Keyprefix] $keyprefix = undef,
  Trigger::Url::Etcd $url = 'etcd://127.0.0.1:2379',
) {
  class { 'trigger::agent':
    backend  => $url,
    certname => $trigger_hostname,
    run_cmd  => $run_cmd,
    prefix   => $keyprefix,
  }
  contain trigger::agent
}
