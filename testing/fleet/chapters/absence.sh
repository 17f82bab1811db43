# shellcheck shell=bash
# Machines that are away while something changes. testing/fleet/run sources it.

# Prints the certnames that PuppetDB has deactivated.
deactivated() {
  shell puppet "curl -sG http://127.0.0.1:8080/pdb/query/v4/nodes --data-urlencode 'query=[\"=\", \"node_state\", \"inactive\"]'" |
    jq --raw-output '.[].certname'
}
is_deactivated() { deactivated | grep -qx "$1.example.com"; }

# Whether a target of an event is in a state.
target_is() { # STATE MACHINE EVENT TARGET
  [[ $(on "$2" trigger status "$3" --output json | jq --raw-output --arg target "$4.example.com" '.targets[] | select(.certname == $target) | .state') == "$1" ]]
}

# web02 is removed while lb02 has no network.
cut_off() {
  local event back
  pull_cable lb02
  step 'lb02 has no network; web02 is removed'
  on puppet puppet node deactivate web02.example.com >/dev/null
  eventually 'PuppetDB has deactivated web02' is_deactivated web02
  event=$(fire puppet 'refresh load balancers' --host lb01.example.com --host lb02.example.com)
  eventually 'lb01 has run' target_is done puppet "$event" lb01
  # web02 itself still answers: it is the balancer that does not know it any more.
  eventually 'lb01 answers without web02' serves lb01 web01 web03
  target_is pending puppet "$event" lb02 || fail "the event at lb02 is not pending: $(states puppet "$event")"
  on puppet trigger status "$event" | quote
  back=$(now)
  plug_cable lb02
  eventually 'lb02 has run' target_is done puppet "$event" lb02
  figure "lb02 has run for what it missed $(seconds_since "$back") s after its network was back"
  eventually 'both answer without web02' serve web01 web03
  ran_once "$event" lb01 lb02
  scrap web02
  on puppet puppetserver ca clean --certname web02.example.com 2>&1 | quote
  on puppet trigger node forget web02.example.com | quote
}

# A change of a web server's weight while a balancer is off reaches it after its boot.
missed_by() { # BALANCER HOW WEIGHT
  local event began booted
  "$2" "$1"
  event=$(change_weight web01 "$3")
  for balancer in "${balancers[@]}"; do
    [[ $balancer == "$1" ]] || eventually "$balancer has run" target_is done web01 "$event" "$balancer"
  done
  target_is pending web01 "$event" "$1" || fail "the event at $1 is not pending: $(states web01 "$event")"
  began=$(now)
  power_on "$1"
  booted=$(now)
  eventually "$1 has run" target_is done web01 "$event" "$1"
  figure "$1, $4: has run for what it missed $(seconds_since "$booted") s after its boot of $(seconds_between "$began" "$booted") s"
  has_weight "$1" web01 "$3" || fail "$1 has run, and does not have the weight $3"
  ran_once "$event" "${balancers[@]}"
  eventually 'both answer' serve web01 web03
}

powered_down() {
  missed_by lb01 shut_down 80 'shut down'
  # Its claim names an agent that cannot be known to have ended, so that it waits for silence: three minutes.
  missed_by lb02 power_off 70 'without power'
}
