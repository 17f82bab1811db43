#!/bin/sh
# The task trigger::status. Bolt gives the parameter as PT_event, and the program's own JSON is the result.
# shellcheck disable=SC2154
PATH=$PATH:/usr/bin:/usr/local/bin:/opt/puppetlabs/bin

set -- status --output json
[ -z "$PT_event" ] || set -- "$@" -- "$PT_event"

if ! command -v trigger >/dev/null; then
  echo '{"_error":{"kind":"trigger/error","msg":"the program trigger is not installed on this node","details":{}}}'
  exit 1
fi
answer=$(trigger "$@")
code=$?
[ "$code" -eq 0 ] || answer=$(printf '%s\n' "$answer" | sed -E \
  -e 's/^\{"error":("([^"\\]|\\.)*")/{"_error":{"kind":"trigger\/error","msg":\1,"details":{}}/')
printf '%s\n' "$answer"
exit "$code"
