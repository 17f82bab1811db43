# @summary Runs Puppet on this node when another node asks for it
#
# Manages the agent's service and `/etc/trigger/trigger.toml`, the configuration of every `trigger` command on
# the node, a `trigger` resource's included. A node that only fires wants the agent too: it delivers what a
# run had to leave behind while the backend was out of reach.
#
# What is left unset is left to the program. A run in progress survives a restart of the service.
#
# @param install
#   How the program comes to this node, as in the class `trigger`, whose other parameters say from where; unset, as that class
#   says. On a node that is a hub too, set `trigger::install` in Hiera instead
# @param backend
#   Where events are carried: `hub+https://HOST:PORT`, `etcds://HOST:PORT[,HOST:PORT…]`, on this machine also
#   `hub+http://localhost:PORT`, without encryption `etcd://HOST:PORT[,HOST:PORT…]`, or, with a stopped service and for
#   dry runs, `dummy:`
# @param certname
#   The node's identity, written in lower case; unset, the agent asks Puppet. After a change of either, the agent runs
#   nothing until `trigger rename` has moved the node over
# @param groups
#   The groups this node is a member of; Hiera merges them over all its levels
# @param run_cmd
#   What runs when an event arrives; unset, a `puppet agent` run. It is split into words and never given to
#   a shell. Runs start in the directory `/`, so that paths in it are absolute
# @param run_timeout
#   How long a run may take before it is ended; a number without a unit is seconds
# @param runs_per_minute
#   How many runs may start on this node within any minute; further runs wait, so that a loop which the
#   loop guard cannot see does no harm. Unset, 10
# @param settle
#   How long a run waits until PuppetDB has stored what the nodes export that it runs for; `0` for not at all. Unset, 20 seconds
# @param puppetdb_url
#   Where this node asks PuppetDB, such as `https://puppetdb.example.com:8081`; unset, where the server that compiles the
#   catalog has it, if it stores catalogs there. `none` for a node that may not reach it
# @param metrics_file
#   Where the agent keeps its metrics for node_exporter's textfile collector, such as
#   `/var/lib/prometheus/node-exporter/trigger.prom`. The directory is not managed here. Unset, there are none
# @param state_dir
#   Where the agent keeps its state
# @param prefix
#   Where in the backend the fleet's keys are kept
# @param backends
#   URLs for `trigger` resources that name a provider; the backend's own kind needs no entry
# @param require_signature
#   Whether events without a valid signature are refused; unset, wherever the node has certificates or a shared key. A node
#   without either runs an agent only with `false`
# @param shared_key
#   The key that all nodes of a fleet without a CA sign with, as made by `trigger keygen`; the file is not managed here
# @param tls_certificate
#   This node's certificate, by which servers know it; unset, Puppet's own
# @param tls_key
#   The private key of that certificate; given together with it
# @param tls_ca
#   The certificates of the CA that servers and nodes have theirs from; unset, those of Puppet's CA
# @param tls_crl
#   The revocation lists of that CA; unset, Puppet's, or none if another CA is given
# @param accept
#   The rules of the node's policy, in their order: the first that is for an event decides whether it may run Puppet here.
#   Without any, every event of the fleet may that asks for no environment; with one, no event that none is for
# @param socket_groups
#   The groups of the system whose members may fire events on this node and look at its queue; root always may
# @param log_operators
#   Whether the operators of a hub with TLS may read the output of this node's runs with `trigger log`; unset, they may
# @param log_readers
#   The certnames of other nodes that may, with `*` and `?` as wildcards; over another
#   backend than such a hub, only these; unset, none
# @param operators
#   The certnames that may cancel other nodes' events on this node and hold it; the node that fired an event may always cancel it
# @param operator_auth_roles
#   The same for certificates with one of these values in the trusted extension `pp_auth_role`
# @param operator_cli_auth
#   Whether the same goes for certificates with the trusted extension `pp_cli_auth`, as that of the Puppet server has it
# @param audit_file
#   Where the agent keeps its audit, a line of JSON each; its directory is not managed here. Unset, the journal has it
# @param service_ensure
#   Whether the agent runs
# @param service_enable
#   Whether the agent starts with the node
#
# @example A node of a fleet with a hub
#   class { 'trigger::agent':
#     backend => 'hub+https://puppet.example.com:8145',
#     groups  => ['web'],
#   }
#
# @example A node that installs the package from a repository that it knows
#   class { 'trigger::agent':
#     install => 'package',
#     backend => 'etcd://etcd1.example.com:2379',
#   }
#
# @example A node that only web servers and an operator's machine may trigger
#   class { 'trigger::agent':
#     backend => 'hub+http://127.0.0.1:8145',
#     accept  => [
#       { 'trigger' => 'refresh*', 'extensions' => { 'pp_role' => 'web' } },
#       { 'from' => 'admin01.example.com' },
#     ],
#   }
#
# @example A node without a Puppet server
#   class { 'trigger::agent':
#     backend    => 'etcds://etcd1.example.com:2379,etcd2.example.com:2379,etcd3.example.com:2379',
#     run_cmd    => 'puppet apply /etc/site.pp',
#     shared_key => '/etc/trigger/fleet.key',
#   }
class trigger::agent (
  Trigger::Backend $backend,
  Optional[Trigger::Install] $install = undef,
  Optional[Trigger::Certname] $certname = undef,
  Array[Trigger::Group] $groups = [],
  Optional[Trigger::Command] $run_cmd = undef,
  Optional[Trigger::Duration] $run_timeout = undef,
  Optional[Integer[1, 600]] $runs_per_minute = undef,
  Optional[Variant[Trigger::Duration, Integer[0, 0]]] $settle = undef,
  Optional[Variant[Trigger::Url::Puppetdb, Enum['none']]] $puppetdb_url = undef,
  Optional[Trigger::Metricsfile] $metrics_file = undef,
  Optional[Trigger::Path] $state_dir = undef,
  Optional[Trigger::Keyprefix] $prefix = undef,
  Trigger::Backends $backends = {},
  Optional[Boolean] $require_signature = undef,
  Optional[Trigger::Path] $shared_key = undef,
  Optional[Trigger::Path] $tls_certificate = undef,
  Optional[Trigger::Path] $tls_key = undef,
  Optional[Trigger::Path] $tls_ca = undef,
  Optional[Trigger::Path] $tls_crl = undef,
  Array[Trigger::Accept] $accept = [],
  Array[Pattern[/\A[A-Za-z_][A-Za-z0-9_.-]*\z/]] $socket_groups = [],
  Optional[Boolean] $log_operators = undef,
  Optional[Array[Pattern[/\A[A-Za-z0-9._*?-]+\z/], 1]] $log_readers = undef,
  Array[Trigger::Certname] $operators = [],
  Array[Trigger::Authrole] $operator_auth_roles = [],
  Optional[Boolean] $operator_cli_auth = undef,
  Optional[Trigger::Path] $audit_file = undef,
  Enum['running', 'stopped'] $service_ensure = 'running',
  Boolean $service_enable = true,
) {
  if $install and !defined(Class['trigger']) {
    class { 'trigger':
      install => $install,
    }
  }
  include trigger

  if $install and $install != $trigger::install {
    fail("trigger::agent: install is '${install}', but the class trigger has '${trigger::install}' already: set trigger::install in Hiera")
  }

  if $service_ensure == 'running' and $backend =~ Trigger::Backend::Writeonly {
    fail("trigger::agent: the backend '${backend}' only takes events, so that no agent can run on it")
  }

  if ($tls_certificate =~ Undef) != ($tls_key =~ Undef) {
    fail('trigger::agent: tls_certificate and tls_key belong together: give both or none')
  }

  $used_puppetdb_url = $puppetdb_url ? {
    'none'  => undef,
    undef   => trigger::puppetdb_url(),
    default => $puppetdb_url,
  }

  file { '/etc/trigger/trigger.toml':
    ensure  => file,
    owner   => 'root',
    group   => 'root',
    mode    => '0644',
    content => epp('trigger/config.toml.epp', {
        'class_name' => $title,
        'settings'   => {
          'backend'           => $backend,
          'certname'          => $certname.then |$name| { $name.downcase },
          'state_dir'         => $state_dir,
          'prefix'            => $prefix,
          'groups'            => $groups.unique,
          'run_cmd'           => $run_cmd,
          'run_timeout'       => $run_timeout,
          'runs_per_minute'   => $runs_per_minute,
          'settle'            => $settle,
          'metrics_file'      => $metrics_file,
          'require_signature' => $require_signature,
          'shared_key'        => $shared_key,
        },
        'tables'     => {
          'puppetdb'  => { 'url' => $used_puppetdb_url },
          'socket'    => { 'groups' => $socket_groups.unique },
          'log'       => { 'operators' => $log_operators, 'readers' => $log_readers.then |$names| { $names.unique } },
          'operators' => {
            'certnames'  => $operators.unique,
            'auth_roles' => $operator_auth_roles.unique,
            'cli_auth'   => $operator_cli_auth,
          },
          'audit'     => { 'file' => $audit_file },
          'tls'       => {
            'certificate' => $tls_certificate,
            'key'         => $tls_key,
            'ca'          => $tls_ca,
            'crl'         => $tls_crl,
          },
          'backends'  => $backends,
        },
        'accept'     => $accept,
    }),
  }

  $settings = $trigger::binary_path ? {
    '/usr/bin/trigger' => undef,
    default            => epp('trigger/trigger-agent.conf.epp', { 'binary_path' => $trigger::binary_path }),
  }
  trigger::unit { 'trigger-agent':
    settings => $settings,
  }

  service { 'trigger-agent':
    ensure    => $service_ensure,
    enable    => $service_enable,
    subscribe => [Class['trigger'], File['/etc/trigger/trigger.toml'], Trigger::Unit['trigger-agent']],
  }

  # The package has a configuration of its own, and units that take the place of those that Puppet writes.
  Class['trigger'] -> [File['/etc/trigger/trigger.toml'], Trigger::Unit['trigger-agent']]
}
