#!/bin/sh
# The tasks trigger::fire and trigger::run, of which the second waits. Bolt gives the parameters as PT_… variables, and the
# program's own JSON is the result.
# shellcheck disable=SC2154
PATH=$PATH:/usr/bin:/usr/local/bin:/opt/puppetlabs/bin

# Prints the elements of a JSON list, a line each. A name has neither quotes nor commas: the program refuses the pieces.
elements() {
  printf '%s' "$1" | tr -d '[]"\n' | tr ',' '\n'
  echo
}

hosts=$(elements "$PT_hosts")
set -- fire --output json --hosts-from -
while IFS= read -r group; do
  [ -z "$group" ] || set -- "$@" --group "$group"
done <<LIST
$(elements "$PT_groups")
LIST
while IFS= read -r tag; do
  [ -z "$tag" ] || set -- "$@" --tag "$tag"
done <<LIST
$(elements "$PT_tags")
LIST
[ "$PT_noop" != true ] || set -- "$@" --noop
[ -z "$PT_environment" ] || set -- "$@" --environment "$PT_environment"
[ -z "$PT_expires_in" ] || set -- "$@" --expires-in "$PT_expires_in"
[ "$PT__task" != trigger::run ] || set -- "$@" --wait
[ -z "$PT_timeout" ] || set -- "$@" --timeout "$PT_timeout"

if ! command -v trigger >/dev/null; then
  echo '{"_error":{"kind":"trigger/error","msg":"the program trigger is not installed on this node","details":{}}}'
  exit 1
fi
answer=$(printf '%s\n' "$hosts" | trigger "$@" -- "$PT_trigger")
code=$?
# Bolt shows what is in `_error`.
[ "$code" -eq 0 ] || answer=$(printf '%s\n' "$answer" | sed -E \
  -e 's/^\{"error":("([^"\\]|\\.)*")/{"_error":{"kind":"trigger\/error","msg":\1,"details":{}}/; t' \
  -e 's/^\{/{"_error":{"kind":"trigger\/not-done","msg":"not every target is done","details":{}},/')
printf '%s\n' "$answer"
exit "$code"
