#!/bin/bash
# Builds an image, or finds it in the cache, and links it as the asset `images/NAME.erofs`.
#
# usage: build-image.sh NAME        NAME.sh beside this file says how its tree is made
#   FLAMES_CACHE      where builds are kept (default ~/.cache/flames)
#   FLAMES_REFRESH=1  asks the distribution again which package versions are current (base)
#
# An image holds a plain root file system and no agent: the agent travels on its own disk, see build-agent.sh.
set -euo pipefail
. "$(dirname "$0")/../../scripts/lib.sh"

here=$root/guest/images

main() {
    name=${1:-}
    [ -n "$name" ] && [ -f "$here/$name.sh" ] || die "no such image: '$name'; there are: base code-interpreter-v1 mini"
    require_tool mkfs.erofs erofs-utils
    lock "image-$name"
    "$here/$name.sh" prepare
    inputs=$(hash_inputs)
    image=$cache/images/$name/$inputs.erofs
    [ -f "$image.json" ] || build
    publish "$image" "images/$name.erofs"
}

hash_inputs() {
    {
        "$here/$name.sh" inputs
        mkfs.erofs --version 2>&1 | head -n 1
        cd "$here" && sha256sum "$name.sh" pack.sh common/etc/*
    } | hash_text
}

build() {
    mkdir -p "$(dirname "$image")"
    as_owner_of_all_files "$0" --assemble "$name" "$image" "$inputs"
    local facts=()
    # What the manifest says of this image alone, a key and its value in turns, each on a line.
    [ ! -f "$here/$name/manifest" ] || mapfile -t facts <"$here/$name/manifest"
    write_manifest "$image" "$inputs" "guest/images/$name.sh" "${facts[@]}"
    say "$name: built in $(show_seconds), $(du -h --apparent-size "$image" | cut -f1)"
}

# Files of an image belong to root and to its user. Without root, fakeroot pretends.
as_owner_of_all_files() {
    [ "$(id -u)" = 0 ] && { "$@"; return; }
    require_tool fakeroot fakeroot
    fakeroot "$@"
}

# assemble NAME IMAGE INPUTS: tree and image in one process tree, because fakeroot's memory ends with it.
assemble() {
    local name=$1 image=$2 inputs=$3 options
    work=$(mktemp -d "$(dirname "$image")/build.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    chmod 0755 "$work"
    mkdir "$work/tree"
    "$here/$name.sh" tree "$work/tree"
    read -ra options <<<"$("$here/$name.sh" mkfs)"
    "$here/pack.sh" "$work/tree" "$image" "$inputs" "${options[@]}"
}

if [ "${1:-}" = --assemble ]; then
    shift
    assemble "$@"
else
    main "$@"
fi
