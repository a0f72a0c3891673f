#!/bin/sh
# The hook of the ACME tests: the records of the domain are lines of a file beside it, and other files there are its moods.
here=$(dirname "$0")
if [ -e "$here/failing" ]; then cat "$here/failing" >&2; exit 3; fi
if [ -e "$here/hanging" ]; then sleep 600; fi
if [ -e "$here/lying" ]; then exit 0; fi
case $1 in
present) echo "$2 $3" >>"$here/records" ;;
cleanup)
    grep -vxF "$2 $3" "$here/records" >"$here/records.new"
    mv "$here/records.new" "$here/records" ;;
*) exit 2 ;;
esac
