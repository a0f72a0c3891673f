#!/bin/bash
# What people do with E2B's command line beside the example: rest, wake, look, fork a name.
set -euo pipefail

has() { grep -qE "$1" <<<"$2" || { echo "no $1 in: $2" >&2; exit 1; }; }

created=$(e2b sandbox create base --detach)
id=$(grep -oE '\bi[a-z0-9]{20}\b' <<<"$created" | head -n 1)
trap 'e2b sandbox kill "$id" || true' EXIT

has "$id" "$(e2b sandbox info "$id")"
e2b sandbox exec --user root "$id" -- sh -c 'echo words for the log > /dev/console'
logs() { e2b sandbox logs "$id" --format json; }
until grep -q words <<<"$(logs)"; do sleep 0.2; done
has '"timestamp":"20[0-9-]+T.*"words for the log"' "$(logs)"
has '"cpuCount":' "$(e2b sandbox metrics "$id" --format json)"
has 'base' "$(e2b template list --format json)"

e2b sandbox exec "$id" -- sh -c 'echo kept > /tmp/kept'
e2b sandbox pause "$id"
has "$id" "$(e2b sandbox list --state paused --format json)"
e2b sandbox resume "$id"
has 'kept' "$(e2b sandbox exec "$id" cat /tmp/kept)"
snapshot=$(e2b sandbox snapshot create "$id" 2>&1) || { echo "$snapshot" >&2; exit 1; }
echo "all calls of the command line: ok"
