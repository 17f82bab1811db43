# shellcheck shell=bash
# What an operator does to a fleet: restarts, upgrades, reboots. testing/fleet/run sources it.

# --- The Puppet server ------------------------------------------------------------------------------------

server_away() {
  local event fired before began machine
  step 'the Puppet server is stopped; the hub goes on'
  on puppet systemctl stop puppetserver
  before=$(last_fired web01)
  hiera profile::web::weight 60
  event=$(fire puppet 'while the server is away' --host web01.example.com)
  eventually 'the run has failed for want of the server' target_is retrying puppet "$event" web01
  on puppet trigger status "$event" --output json | jq --raw-output '.targets[0] | "\(.state): \(.reason)"' | quote
  [[ -z $(fired_since web01 "$before") ]] || fail 'web01 has fired, though no run of it had a catalog'
  began=$(now)
  on puppet systemctl start puppetserver
  say "the Puppet server has started within $(seconds_since "$began") s"
  ends_well 'web01 has run' puppet "$event" 1
  figure "web01 has run $(seconds_since "$began") s after the start of the Puppet server, at its attempt $(runs_for web01 "$event")"
  fired=$(fired_once web01 "$before")
  ends_well 'the balancers have run' web01 "$fired" "${#balancers[@]}"
  applied_once "$event" web01
  applied_once "$fired" "${balancers[@]}"
  for machine in "${balancers[@]}"; do
    has_weight "$machine" web01 60 || fail "$machine has run, and does not have the weight 60"
  done

  step 'it is restarted in the middle of their runs'
  event=$(fire puppet 'in the middle' --host web01.example.com --host web03.example.com --host lb01.example.com --host lb02.example.com)
  eventually 'lb01 runs' target_is running puppet "$event" lb01
  on puppet systemctl restart puppetserver
  ends_well 'all have run' puppet "$event" 4
  applied_once "$event" web01 web03 lb01 lb02
  for machine in web01 web03 lb01 lb02; do say "$machine: attempts $(runs_for "$machine" "$event")"; done
  eventually 'nothing waits on any machine' all_are_idle
}

all_are_idle() {
  local machine
  for machine in "${machines[@]}"; do is_idle "$machine" || return 1; done
}

# --- An upgrade -------------------------------------------------------------------------------------------

# One event upgrades every machine, the hub's among them, in the run that it starts.
upgrade() {
  local event machine hosts=() next
  local -A agent
  next=$(on puppet dpkg-query -W -f '${Version}' trigger).1
  publish_later_version "$next"
  put puppet "$scratch/repository/." /srv/repository
  hiera trigger::package_ensure "$next"
  for machine in "${machines[@]}"; do
    hosts+=(--host "$machine.example.com")
    agent[$machine]=$(agent_of "$machine")
  done
  event=$(fire puppet 'upgrade' "${hosts[@]}")
  ends_well 'all have run' puppet "$event" "${#machines[@]}"
  on puppet trigger status "$event" | quote
  for machine in "${machines[@]}"; do
    [[ $(shell "$machine" "dpkg-query -W -f '\${Version}' trigger") == "$next" ]] || fail "the run has not upgraded $machine"
    [[ $(agent_of "$machine") != "${agent[$machine]}" ]] || fail "the agent of $machine was not restarted"
    eventually "$machine is connected" is_connected "$machine"
  done
  step "all have version $next, and an agent of it"
  ran_once "$event" "${machines[@]}"
  # A loop would show in front of what is fired now, or share its run.
  event=$(fire puppet 'after the upgrade' "${hosts[@]}")
  ends_well 'all have run' puppet "$event" "${#machines[@]}"
  ran_once "$event" "${machines[@]}"
  for machine in "${machines[@]}"; do
    [[ $(last_two_causes "$machine") == 'after the upgrade,upgrade' ]] || fail "$machine has run for something else: $(last_two_causes "$machine")"
  done
  eventually 'nothing waits on any machine' all_are_idle
}
agent_of() { on "$1" systemctl show --property MainPID --value trigger-agent; } # MACHINE: prints its process
# Prints the triggers of a machine's last two runs, the later first.
last_two_causes() { # MACHINE
  audit "$1" | jq --raw-output --slurp '
    ([.[] | select(.action == "deliver") | {(.event): .trigger}] | add) as $trigger
    | [.[] | select(.action == "run") | [.events | scan("[0-9a-f-]{36}") | $trigger[.]] | unique | join("+")]
    | reverse | .[:2] | join(",")'
}

# --- Reboots ----------------------------------------------------------------------------------------------

reboots() {
  local machine event began from
  for machine in "${machines[@]}"; do
    from=puppet
    [[ $machine != puppet ]] || from=web01
    shut_down "$machine"
    began=$(now)
    # Without the hub it waits in the outbox of web01.
    event=$(fire "$from" 'refresh after a reboot' --host "$([[ $machine == puppet ]] && echo lb01 || echo "$machine").example.com")
    [[ $machine != puppet ]] || say "meanwhile: $(on web01 trigger status "$event" --output json | jq --raw-output .state)"
    power_on "$machine"
    eventually "$machine is connected" is_connected "$machine"
    if [[ $machine == puppet ]]; then machine=lb01; fi
    ends_well "$machine has run" "$from" "$event" 1
    figure "$([[ $from == puppet ]] && echo "$machine" || echo puppet): the event that was fired meanwhile has run $(seconds_since "$began") s after the shutdown"
    # Without the Puppet server, which starts beside the hub, there may have been attempts before.
    applied_once "$event" "$machine"
  done
  fleet_is_well
}

# Every node is alive, nothing waits, no event has run twice, and each machine has no findings.
fleet_is_well() {
  local machine twice
  eventually 'nothing waits on any machine' all_are_idle
  on puppet trigger nodes | quote
  on puppet trigger nodes --output json |
    jq --exit-status --argjson machines "${#machines[@]}" '(.nodes | length) == $machines and all(.nodes[]; .agent == "alive" and .deliveries == [])' >/dev/null ||
    fail 'not every node is alive and without deliveries'
  for machine in "${machines[@]}"; do
    on "$machine" trigger doctor >"$scratch/doctor" || { cat "$scratch/doctor" >&2; fail "the doctor finds errors on $machine"; }
    [[ $(on "$machine" systemctl is-system-running) == running ]] || fail "$machine is not running well"
    twice=$(audit "$machine" | jq --raw-output 'select(.action == "end") | .event' | sort | uniq -d)
    [[ -z $twice ]] || fail "$machine has reported events twice: $twice"
  done
}
