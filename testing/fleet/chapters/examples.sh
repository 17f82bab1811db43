# shellcheck shell=bash
# The examples of the original, and those of the module, as manifests that are applied. testing/fleet/run sources it.

# What a machine needs to apply a manifest of its own: the module, its Hiera, and the repository. `puppet module install` leaves no
# second copy on the Puppet server.
equip() { # MACHINE
  put "$1" "$(echo "$scratch"/packages/trigger-trigger-*.tar.gz)" /root/module.tar.gz
  on "$1" mkdir -p /etc/apt/keyrings
  put "$1" "$scratch/repository/trigger.asc" /etc/apt/keyrings/trigger.asc
  shell "$1" 'mkdir -p /etc/puppet/code/modules
    printf "version: 5\nhierarchy: [{ name: site, datadir: /etc/puppet, path: site.yaml }]\n" >/etc/puppet/hiera.yaml
    printf "trigger::install: package\n" >/etc/puppet/site.yaml
    tar -xzf /root/module.tar.gz --one-top-level=/etc/puppet/code/modules/trigger --strip-components 1
    printf "Types: deb\nURIs: http://puppet.example.com:8000\nSuites: stable\nComponents: main\nSigned-By: /etc/apt/keyrings/trigger.asc\n" \
      >/etc/apt/sources.list.d/trigger.sources
    apt-get update -qq -o Dir::Etc::sourcelist=/etc/apt/sources.list.d/trigger.sources -o Dir::Etc::sourceparts=-'
}

# Applies a file of a machine, which has to change something there.
apply_file() { # MACHINE PATH
  local status=0
  on "$1" puppet apply --modulepath /etc/puppet/code/modules --hiera_config /etc/puppet/hiera.yaml --detailed-exitcodes --color=false "$2" \
    >"$scratch/applied-$1" 2>&1 || status=$?
  # 2: changes, and nothing failed.
  [[ $status -eq 2 ]] || { cat "$scratch/applied-$1" >&2; fail "puppet apply $2 on $1 ended with exit code $status"; }
}
apply_example() { # MACHINE FILE
  step "$2 on $1"
  apply_file "$1" "/etc/puppet/code/modules/trigger/examples/$2"
}

example_files() {
  local machine
  for machine in puppet web01 lb02; do equip "$machine"; done
  targets_from_a_query
  with_the_hub
  with_an_etcd_cluster
}

# The original's manifest asked PuppetDB with `query_nodes(…)`.
targets_from_a_query() {
  local before event
  step 'targets from a query'
  cat >"$scratch/query.pp" <<'PP'
trigger { 'refresh load balancers':
  query => 'resources[certname] { type = "Class" and title = "Profile::Balancer" }',
}
file { '/root/query': content => "asked\n", notify => Trigger['refresh load balancers'] }
PP
  put web01 "$scratch/query.pp" /root/query.pp
  before=$(last_fired web01)
  apply_file web01 /root/query.pp
  event=$(fired_once web01 "$before")
  ends_well 'the balancers have run' web01 "$event" "${#balancers[@]}"
}

with_the_hub() {
  local before event
  apply_example puppet hub.pp
  on puppet grep -q admin01.example.com /etc/trigger/hub.toml || fail 'the hub does not have the operator of the example'
  for machine in puppet web01 lb02; do eventually "$machine is connected" is_connected "$machine"; done
  apply_example lb02 balancer.pp
  eventually 'lb02 is in its group' is_member lb02 load-balancers
  before=$(last_fired web01)
  apply_example web01 web.pp
  event=$(fired_once web01 "$before")
  ends_well 'lb02 has run' web01 "$event" 1
  on web01 trigger status "$event" | quote
}
is_member() { # MACHINE GROUP
  [[ $(on puppet trigger nodes --output json | jq --arg node "$1.example.com" --arg group "$2" \
    '.nodes[] | select(.certname == $node) | .groups | any(. == $group)') == true ]]
}

with_an_etcd_cluster() {
  local machine event run runs=()
  for machine in etcd01 etcd02 etcd03; do
    boot "$machine"
    equip "$machine"
    on "$machine" puppet config set server puppet.example.com --section main
    on "$machine" puppet ssl bootstrap --http_keepalive_timeout 0 >/dev/null 2>&1 || fail "$machine gets no certificate"
  done
  # Their services start together: the first one waits until another one is there.
  for machine in etcd01 etcd02 etcd03; do
    apply_example "$machine" etcd_cluster.pp &
    runs+=($!)
  done
  for run in "${runs[@]}"; do wait "$run" || exit 1; done
  for machine in etcd01 etcd02 etcd03; do eventually "$machine is connected" is_connected "$machine"; done
  event=$(fire etcd01 'new member' --host etcd02.example.com --host etcd03.example.com)
  ends_well 'the others have run' etcd01 "$event" 2
  on etcd01 trigger status "$event" | quote
}
