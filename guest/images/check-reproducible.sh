#!/bin/bash
# Builds images twice, each time from nothing in a folder of its own, and fails unless the bytes are the same.
#
# usage: check-reproducible.sh [NAME]...        default: mini base (base is downloaded twice)
set -euo pipefail
. "$(dirname "$0")/../../scripts/lib.sh"

main() {
    local name
    work=$(mktemp -d "${TMPDIR:-/tmp}/flames-reproducible.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    [ $# -gt 0 ] || set -- mini base
    for name in "$@"; do check "$name"; done
}

check() {
    local name=$1 first second
    first=$(build_in "$work/first" "$name")
    second=$(build_in "$work/a-longer-path/second" "$name")
    [ "$first" = "$second" ] || die "$name differs between two builds: $first and $second"
    echo "$name: reproducible, sha256 $first"
}

# build_in FOLDER NAME: the sha256 of the image built with FOLDER as cache and as checkout's assets.
build_in() {
    mkdir -p "$1"
    FLAMES_CACHE=$1/cache FLAMES_ASSETS=$1/assets "$root/guest/images/build-image.sh" "$2"
    hash_file "$1/assets/images/$2.erofs"
}

main "$@"
