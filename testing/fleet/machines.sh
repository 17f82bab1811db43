# shellcheck shell=bash
# The machines of a fleet in Docker. The scripts beside this file source it, from the root of the repository.
#
# KEEP=1 leaves the machines to be looked at.

fleet=trigger-fleet-$$
scratch=$(mktemp -d)
machines=()
# In seconds; bounds a failure. Generous, because a small machine may be busy with other things.
patience=${PATIENCE:-400}

step() { printf '== %5d s  %s\n' "$SECONDS" "$*"; }
say() { printf '            %s\n' "$*"; }
fail() {
  local machine
  echo "fleet: error: $*" >&2
  for machine in "${machines[@]}"; do
    echo "--- $machine" >&2
    docker exec "$fleet-$machine" journalctl --no-pager --lines 30 --unit trigger-agent --unit trigger-hub >&2 || true
  done
  exit 1
}

clean_up() {
  local machine
  rm -rf "$scratch"
  if [[ -n ${KEEP:-} ]]; then
    echo "fleet: left running: ${machines[*]/#/$fleet-}" >&2
    return
  fi
  for machine in "${machines[@]}"; do docker rm --force --volumes "$fleet-$machine" >/dev/null 2>&1 || true; done
  docker network rm "$fleet" >/dev/null 2>&1 || true
}
trap clean_up EXIT

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

address() { # MACHINE: prints its address
  local index
  for index in "${!machines[@]}"; do
    if [[ ${machines[index]} == "$1" ]]; then echo "$addresses.$((index + 10))"; fi
  done
}

boot() { # MACHINE [SUITE]
  machines+=("$1")
  IMAGE=trigger-fleet:${2:-trixie} packaging/machine start "$fleet-$1" -- --hostname "$1.example.com" \
    --network "$fleet" --network-alias "$1.example.com" --ip "$(address "$1")" ||
    fail "$1 does not boot"
}
pull_cable() { docker network disconnect "$fleet" "$fleet-$1"; }
plug_cable() { docker network connect --alias "$1.example.com" --ip "$(address "$1")" "$fleet" "$fleet-$1"; }

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
are_done() { # MACHINE EVENT TARGETS: whether all runs of the event have ended well
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
runs_of() { # MACHINE: how many runs its agent has begun
  shell "$1" 'ls /var/lib/trigger/runs/*.log 2>/dev/null | wc -l'
}

# Builds the packages, a later version, the module, and the signed repository that has the first.
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
publish() {
  packaging/repository test@example.com "$scratch/packages" "$scratch/repository" >/dev/null
  gpgconf --kill gpg-agent
  chmod -R a+rX "$scratch/repository"
}
