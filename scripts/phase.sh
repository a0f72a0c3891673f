#!/bin/bash
# Runs one phase of a longer job and says how long it took.
#
# usage: phase.sh NAME COMMAND [ARGUMENT]...
set -uo pipefail

name=$1
shift
"$@"
status=$?
if [ "$status" = 0 ]; then result=ok; else result="failed with code $status"; fi
printf 'phase %s: %d s, %s\n' "$name" "$SECONDS" "$result"
exit "$status"
