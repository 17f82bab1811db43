# shellcheck shell=bash
# The machines of a fleet in Docker. The scripts beside this file source it, from the root of the repository.
#
# KEEP=1 leaves the machines to be looked at, and prints their FLEET. With FLEET, a script has these machines and boots no others
# before its chapters.

fleet=${FLEET:-trigger-fleet-$$}
scratch=${TMPDIR:-/tmp}/$fleet
mkdir -p "$scratch"
machines=()
# In seconds; bounds a failure. Generous, because a small machine may be busy with other things.
patience=${PATIENCE:-400}
export PATIENCE=$patience

step() { printf '== %5d s  %s\n' "$SECONDS" "$*"; }
say() { printf '            %s\n' "$*"; }
quote() { sed 's/^/            /'; }
fail() {
  local machine
  echo "fleet: error: $*" >&2
  for machine in "${machines[@]}"; do
    echo "--- $machine" >&2
    docker exec "$fleet-$machine" journalctl --no-pager --lines 30 --unit 'trigger*' >&2 || true
    docker exec "$fleet-$machine" trigger queue >&2 || true
  done
  exit 1
}

clean_up() {
  local machine
  if [[ -n ${KEEP:-} ]]; then
    echo "fleet: FLEET=$fleet has the machines ${machines[*]}" >&2
    return
  fi
  rm -rf "$scratch"
  for machine in "${machines[@]}"; do docker rm --force --volumes "$fleet-$machine" >/dev/null 2>&1 || true; done
  docker network rm "$fleet" >/dev/null 2>&1 || true
}
trap clean_up EXIT

# --- Chapters ----------------------------------------------------------------------------------------------

# What was seen, one line for each chapter and each figure.
seen=()

# Runs a chapter, a function of this name.
chapter() { # NAME TITLE
  local began=$SECONDS
  printf '\n== %5d s  %s: %s\n' "$SECONDS" "$1" "$2"
  "$1"
  seen+=("$(printf '%5d s  %s: %s' $((SECONDS - began)) "$1" "$2")")
}
# Prints a figure, and once more in the summary.
figure() {
  say "$*"
  seen+=("         $*")
}
summary() { # TEXT
  printf '\n'
  printf '%s\n' "${seen[@]}"
  step "$*"
}

now() { date +%s.%N; }
seconds_between() { awk -v "from=$1" -v "to=$2" 'BEGIN { printf "%.1f", to - from }'; }
seconds_since() { seconds_between "$1" "$(now)"; }

# --- Machines ----------------------------------------------------------------------------------------------

# The images of the machines, each with the name of its Debian as its tag.
images=trigger-fleet

# Makes the network of the fleet, where each machine keeps its address over a restart.
make_network() {
  local subnet
  # Docker chooses a subnet that is free; addresses can be given in a subnet that was given only.
  docker network create "$fleet" >/dev/null
  subnet=$(docker network inspect --format '{{(index .IPAM.Config 0).Subnet}}' "$fleet")
  docker network rm "$fleet" >/dev/null
  docker network create --subnet "$subnet" "$fleet" >/dev/null
  addresses=${subnet%.*}
}

# Takes over the machines that an earlier run has kept.
take_over() {
  local name
  addresses=$(docker network inspect --format '{{(index .IPAM.Config 0).Subnet}}' "$fleet")
  addresses=${addresses%.*}
  while read -r name; do
    name=${name#"$fleet-"}
    machines+=("$name")
    places[$name]=$(docker inspect --format "{{(index .NetworkSettings.Networks \"$fleet\").IPAMConfig.IPv4Address}}" "$fleet-$name")
    places[$name]=${places[$name]##*.}
    if ((places[$name] > last_place)); then last_place=${places[$name]}; fi
  done < <(docker ps --all --filter "network=$fleet" --format '{{.Names}}' | sort)
}

# The last number of each machine's address.
declare -A places=()
last_place=9
address() { echo "$addresses.${places[$1]}"; } # MACHINE

boot() { # MACHINE [SUITE]
  last_place=$((last_place + 1))
  places[$1]=$last_place
  machines+=("$1")
  IMAGE=$images:${2:-trixie} packaging/machine start "$fleet-$1" -- --hostname "$1.example.com" \
    --network "$fleet" --network-alias "$1.example.com" --ip "$(address "$1")" ||
    fail "$1 does not boot"
}
pull_cable() { docker network disconnect "$fleet" "$fleet-$1"; }
plug_cable() { docker network connect --alias "$1.example.com" --ip "$(address "$1")" "$fleet" "$fleet-$1"; }
# As `systemctl poweroff`; a machine that has not ended after that time loses its power.
shut_down() { docker stop -t 90 "$fleet-$1" >/dev/null; }
power_off() { docker kill "$fleet-$1" >/dev/null; }
power_on() { # MACHINE
  docker start "$fleet-$1" >/dev/null
  packaging/machine await "$fleet-$1" || fail "$1 does not boot"
}
# Takes a machine away for good, after a shutdown.
scrap() { # MACHINE
  local machine left=()
  shut_down "$1"
  docker rm --force --volumes "$fleet-$1" >/dev/null
  for machine in "${machines[@]}"; do [[ $machine == "$1" ]] || left+=("$machine"); done
  machines=("${left[@]}")
}

on() { docker exec "$fleet-$1" "${@:2}"; } # MACHINE COMMAND...
shell() { on "$1" bash -euc "$2"; }        # MACHINE SCRIPT
put() { docker cp -q "$2" "$fleet-$1:$3"; } # MACHINE FILE PATH

eventually() { # WHAT COMMAND...
  local what=$1 deadline=$((SECONDS + patience))
  shift
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < deadline)) || fail "after $patience seconds, not yet: $what"
    sleep 0.3
  done
}

# --- Trigger on them ---------------------------------------------------------------------------------------

# Fires an event on a machine, as an operator does, and prints its id.
fire() { # MACHINE ARGUMENTS...
  on "$1" trigger fire "${@:2}" --output json | jq --raw-output .event_id
}
# Prints the state of each of an event's targets, in the order of their names, as `done/changed`.
states() { # MACHINE EVENT
  on "$1" trigger status "$2" --output json |
    jq --raw-output '[.targets | sort_by(.certname)[] | "\(.state)/\(.outcome)"] | join(" ")'
}
# Waits until an event has ended at all of its targets, and fails unless it is done there.
ends_well() { # WHAT MACHINE EVENT TARGETS
  eventually "$1" have_ended "${@:2}"
  are_done "${@:2}" || fail "$1, and not well: $(states "$2" "$3")"
}
have_ended() { # MACHINE EVENT TARGETS
  [[ $(states "$1" "$2" | tr ' ' '\n' | grep -cE '^(done|failed|expired|refused|suppressed|superseded|cancelled)/') -eq $3 ]]
}
are_done() { # MACHINE EVENT TARGETS
  [[ $(states "$1" "$2" | tr ' ' '\n' | grep -c '^done/') -eq $3 ]]
}
are_in() { # STATES MACHINE EVENT
  [[ $(states "$2" "$3") == "$1" ]]
}
is_connected() { # MACHINE
  [[ $(on "$1" trigger facts | jq '.agent.connected and .agent.holds_claim') == true ]]
}
# Prints the ids of the events that a machine's triggers have fired, the newest first.
fired_by() { # MACHINE
  on "$1" trigger status --output json | jq --raw-output --arg origin "$1.example.com" '.events[] | select(.origin == $origin) | .event_id'
}
last_fired() { fired_by "$1" | sed -n 1p; } # MACHINE: prints the newest of them
# Prints the runs of a machine that were for an event, as its audit has them.
runs_of() { # MACHINE EVENT
  audit "$1" | jq --raw-output --arg event "$2" 'select(.action == "run" and (.events | contains($event))) | .run'
}
runs_for() { runs_of "$@" | wc -l; } # MACHINE EVENT: prints their number
# Prints what an agent has audited.
audit() { on "$1" cat /var/log/trigger/audit.log; } # MACHINE
# Prints how many of them have applied a catalog. The others could not happen, such as those without the Puppet server.
catalogs_for() { # MACHINE EVENT
  local run
  for run in $(runs_of "$1" "$2"); do
    on "$1" grep -l 'Applied catalog' "/var/lib/trigger/runs/$run.log" || true
  done | wc -l
}
# Fails unless each of these machines has run once for an event, and has reported one end of it.
ran_once() { # EVENT MACHINE...
  local machine
  for machine in "${@:2}"; do
    [[ $(runs_for "$machine" "$1") -eq 1 ]] || fail "$machine has run $(runs_for "$machine" "$1") times for the event $1, and not once"
  done
  ended_once "$@"
}
# The same of runs that may have been tried before, as long as there was no catalog to apply.
applied_once() { # EVENT MACHINE...
  local machine
  for machine in "${@:2}"; do
    [[ $(catalogs_for "$machine" "$1") -eq 1 ]] || fail "$machine has applied $(catalogs_for "$machine" "$1") catalogs for the event $1, and not one"
  done
  ended_once "$@"
}
ended_once() { # EVENT MACHINE...
  local machine ends
  for machine in "${@:2}"; do
    ends=$(audit "$machine" | jq --raw-output --arg event "$1" 'select(.action == "end" and .event == $event) | .state')
    [[ $ends == done ]] || fail "$machine has reported of the event $1: $ends"
  done
}
# Whether nothing runs, waits or is spooled on a machine.
is_idle() { # MACHINE
  on "$1" trigger queue --output json |
    jq --exit-status '.agent_running and .running == null and ([.waiting, .held, .spooled, .quarantined] | add | length) == 0'
}

# Builds the packages, the module, and the signed repository of the packages.
build_packages() {
  export GNUPGHOME=$scratch/gnupg
  if [[ -z ${TRIGGER_BINARY:-} ]]; then
    cargo build --locked --quiet -p trigger
    TRIGGER_BINARY=$PWD/target/debug/trigger
  fi
  export TRIGGER_BINARY
  packaging/build "$scratch/packages" >"$scratch/log" 2>&1 || { cat "$scratch/log" >&2; fail 'the packages cannot be built'; }
  packaging/module "$scratch/packages" >/dev/null
  mkdir -m 700 "$GNUPGHOME"
  gpg --batch --quiet --passphrase '' --quick-generate-key 'Throw-away key <test@example.com>' ed25519 sign never 2>/dev/null
  publish
  say "the package is $(du -k "$scratch"/packages/trigger_*.deb | cut -f 1) kB, the program $(stat -c %s "$TRIGGER_BINARY" | numfmt --to=iec)"
}
# Adds the package of a later version to the repository: the same program.
publish_later_version() { # VERSION
  local root=$scratch/later
  mkdir -p "$scratch/later-packages"
  dpkg-deb -R "$(echo "$scratch"/packages/trigger_*.deb)" "$root"
  sed -i "s/^Version: .*/Version: $1/" "$root/DEBIAN/control"
  dpkg-deb --build --root-owner-group "$root" "$scratch/later-packages/trigger_later.deb" >/dev/null
  rm -r "$root"
  export GNUPGHOME=$scratch/gnupg
  publish "$scratch/later-packages"
}
publish() { # [PACKAGES]
  packaging/repository test@example.com "${1:-$scratch/packages}" "$scratch/repository" >/dev/null
  gpgconf --kill gpg-agent
  chmod -R a+rX "$scratch/repository"
}
