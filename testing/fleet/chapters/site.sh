# shellcheck shell=bash
# The site, its nodes, and what fires on them. testing/fleet/run sources it.

readonly balancers=(lb01 lb02)
readonly site=/etc/puppet/code/environments/production

# --- What is seen -----------------------------------------------------------------------------------------

# Whether every balancer answers, with the pages of these web servers and no others.
serve() { # MACHINE...
  local balancer
  for balancer in "${balancers[@]}"; do serves "$balancer" "$@" || return 1; done
}
serves() { # BALANCER MACHINE...
  local expected
  expected=$(printf 'this is %s\n' "${@:2}" | sort)
  [[ $(pages_of "$1") == "$expected" ]]
}
pages_of() { # BALANCER: prints what it answers
  shell puppet "for _ in 1 2 3 4 5 6 7 8; do curl -sf --max-time 2 http://$1.example.com/ || true; done" | sort -u
}

has_weight() { # BALANCER WEB WEIGHT
  on "$1" grep -q "server $2 .*weight $3\$" /etc/haproxy/haproxy.cfg
}

# Sets a value of the site's Hiera.
hiera() { # KEY VALUE
  shell puppet "sed -i '/^$1:/d' $site/data/site.yaml; echo '$1: $2' >>$site/data/site.yaml"
}

# Prints the events that a machine's triggers have fired since another one.
fired_since() { # MACHINE EVENT
  fired_by "$1" | sed "/^$2\$/,\$d"
}
has_fired_since() { [[ -n $(fired_since "$@") ]]; }

# Prints the one event that a machine's triggers have fired since another one.
fired_once() { # MACHINE EVENT
  local events
  mapfile -t events < <(fired_since "$1" "$2")
  [[ ${#events[@]} -eq 1 ]] || fail "$1 has fired ${#events[@]} events, and not one: ${events[*]}"
  echo "${events[0]}"
}

# A web server gets another weight by a run that Trigger starts, and its trigger fires. Prints that event.
change_weight() { # WEB WEIGHT
  local event before
  before=$(last_fired "$1")
  hiera profile::web::weight "$2"
  event=$(fire puppet 'new weight' --host "$1.example.com")
  ends_well "$1 has run" puppet "$event" 1
  fired_once "$1" "$before"
}

# --- Chapters ---------------------------------------------------------------------------------------------

prepare() {
  testing/fleet/image trixie
  testing/fleet/image bookworm
  build_packages
  make_network
}

start_server() {
  boot puppet
  put puppet testing/fleet/server-setup /root/
  shell puppet "mkdir -p $site"
  put puppet testing/fleet/site/. $site/
  put puppet "$scratch/repository" /srv/repository
  put puppet "$scratch/repository/trigger.asc" /root/trigger.asc
  put puppet "$(echo "$scratch"/packages/trigger-trigger-*.tar.gz)" /root/module.tar.gz
  on puppet /root/server-setup >"$scratch/setup" 2>&1 || { cat "$scratch/setup" >&2; fail 'the Puppet server cannot be set up'; }
  # Debian's Python serves the repository; a site has a web server for that.
  shell puppet "cat >/etc/systemd/system/repository.service <<'UNIT'
[Service]
ExecStart=/usr/bin/python3 -m http.server --directory /srv/repository 8000
Restart=always
[Install]
WantedBy=multi-user.target
UNIT
    systemctl enable --quiet --now repository
    install -D -m 644 /root/trigger.asc $site/modules/profile/files/trigger.asc
    puppet module install --ignore-dependencies /root/module.tar.gz --target-dir $site/modules >/dev/null
    chmod -R a+rX $site"
  step 'the first run of the server: its hub and its agent'
  first_run puppet
  eventually 'the agent of the server is connected' is_connected puppet
}

# The first Puppet run of a node: the certificate, the package, the configuration and the agent, and what its role has.
first_run() { # MACHINE
  local status=0
  # shellcheck disable=SC2016 # it expands on the machine
  shell "$1" 'puppet config set server puppet.example.com --section main
    [[ $(hostname) != web* ]] || printf "extension_requests:\n  pp_role: web\n" >$(puppet config print confdir)/csr_attributes.yaml'
  # Debian's Puppet server keeps a client waiting that asks for a certificate over a connection that stays open.
  on "$1" puppet agent --onetime --no-daemonize --detailed-exitcodes --no-usecacheonfailure --waitforcert 0 --color=false \
    --http_keepalive_timeout 0 --verbose >"$scratch/$1.first" 2>&1 || status=$?
  # 2: changes, and nothing failed.
  [[ $status -eq 2 ]] || { cat "$scratch/$1.first" >&2; fail "the first run of $1 ended with exit code $status"; }
}

start_nodes() {
  local machine run runs=()
  for machine in "${balancers[@]}"; do
    boot "$machine"
    first_run "$machine" &
    runs+=($!)
  done
  for run in "${runs[@]}"; do wait "$run" || exit 1; done
  step 'the balancers run; the first web server'
  boot web01
  first_run web01
  eventually 'the web server answers at every balancer' serve web01
  step 'web01 answers at every balancer, whose Puppet has run because of Trigger'
}

more_webs() {
  add_web web02 trixie web01
  add_web web03 bookworm web01 web02
  say "web03 has $(on web03 sed -n 's/^PRETTY_NAME=//p' /etc/os-release), Puppet $(on web03 puppet --version)"
  on puppet trigger why lb02.example.com | quote
}

# A new web server answers at every balancer, though Puppet is run there by Trigger alone.
add_web() { # MACHINE SUITE OTHERS...
  local machine=$1 changed balancer run
  local -A served=()
  step "another web server: $machine"
  boot "$machine" "$2"
  first_run "$machine" &
  run=$!
  for balancer in "${balancers[@]}"; do
    eventually "$machine answers at $balancer" serves "$balancer" "${@:3}" "$machine"
    served[$balancer]=$(now)
  done
  wait "$run" || exit 1
  eventually "all answer at every balancer" serve "${@:3}" "$machine"
  changed=$(on "$machine" stat --format %.Y /etc/apache2/sites-available/25-shop.conf)
  for balancer in "${balancers[@]}"; do
    figure "$machine answers at $balancer $(seconds_between "$changed" "${served[$balancer]}") s after the change of its virtual host"
  done
  figure "without Trigger: when Puppet runs there next, within its runinterval of $(on lb01 puppet config print runinterval) s, half of it on average"
}

# Both ways in which a resource fires, each in a run that Trigger starts.
manifests() {
  local event before balancer
  # shellcheck disable=SC2016 # the manifest's words
  step 'a virtual host that changes notifies: `notify => Trigger[…]`'
  before=$(last_fired web01)
  hiera profile::web::aliases '["www.example.com"]'
  event=$(fire puppet 'new alias' --host web01.example.com)
  ends_well 'web01 has run' puppet "$event" 1
  event=$(fired_once web01 "$before")
  ends_well "the event $event has ended" web01 "$event" "${#balancers[@]}"

  # shellcheck disable=SC2016 # the manifest's word
  step 'exported data that change: `on_change`'
  event=$(change_weight web01 90)
  ends_well "the event $event has ended" web01 "$event" "${#balancers[@]}"
  ran_once "$event" "${balancers[@]}"
  for balancer in "${balancers[@]}"; do
    has_weight "$balancer" web01 90 || fail "$balancer has run, and does not have the new weight"
  done
}

# A node whose rules are for no such event.
refusal() {
  local event
  event=$(fire lb01 'refresh load balancers' --host web01.example.com)
  eventually 'the event is refused' are_in refused/null lb01 "$event"
  on lb01 trigger status "$event" --output json | jq --raw-output '.targets[0].reason' | quote
  [[ $(runs_for web01 "$event") -eq 0 ]] || fail 'web01 has run for an event that it refused'
}
