# @summary Makes Puppet run on nodes, waits for all of them, and shows how each one ended
#
# The nodes need not be targets of Bolt: the event is fired on one target, and reaches them by the fleet's backend.
#
# @param origin
#   The target that fires the event
# @param trigger
#   What the event is called
# @param hosts
#   The certnames of the nodes that run Puppet
# @param groups
#   The groups whose members run Puppet
# @param noop
#   Whether Puppet only reports what it would change
# @param timeout
#   How long to wait
#
# @return The event with its deliveries, as the task `trigger::run` returns it
#
# @example
#   bolt plan run trigger::converge origin=admin01.example.com trigger='new release' groups='["web"]'
plan trigger::converge (
  TargetSpec $origin,
  String[1] $trigger,
  Array[String[1]] $hosts = [],
  Array[String[1]] $groups = [],
  Boolean $noop = false,
  String[1] $timeout = '10m',
) {
  $parameters = { 'trigger' => $trigger, 'hosts' => $hosts, 'groups' => $groups, 'noop' => $noop, 'timeout' => $timeout }
  $result = run_task('trigger::run', $origin, "Fire '${trigger}' and wait", $parameters + { '_catch_errors' => true }).first
  if $result['targets'] =~ Array {
    $result['targets'].each |$delivery| {
      $words = [$delivery['state'], $delivery['outcome'], $delivery['reason']].filter |$word| { $word =~ NotUndef }
      out::message("${delivery['certname']}: ${words.join(', ')}")
    }
  }
  unless $result.ok {
    fail_plan($result.error)
  }
  return $result.value
}
