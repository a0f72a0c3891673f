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
    [ -n "$name" ] && [ -f "$here/$name.sh" ] || die "no such image: '$name'; there are: $(list_images)"
    require_tool mkfs.erofs erofs-utils
    as_owner_of_all_files "$@"
    inputs=$(hash_inputs)
    image=$cache/images/$name/$inputs.erofs
    [ -f "$image.json" ] || build
    publish "$image" "images/$name.erofs"
}

list_images() {
    (cd "$here" && grep -l '^tree()' -- *.sh | sed 's/\.sh$//' | grep -v '^build-image$' | tr '\n' ' ')
}

# Files of an image belong to root and to its user. Without root, fakeroot pretends.
as_owner_of_all_files() {
    [ "$(id -u)" = 0 ] && return
    require_tool fakeroot fakeroot
    exec fakeroot "$0" "$@"
}

hash_inputs() {
    {
        "$here/$name.sh" inputs
        mkfs.erofs --version 2>&1 | head -n 1
        cd "$here" && sha256sum "$name.sh" pack.sh common/etc/*
    } | hash_text
}

build() {
    local work options
    lock "image-$name"
    [ -f "$image.json" ] && return
    mkdir -p "$(dirname "$image")"
    work=$(mktemp -d "$cache/images/$name/build.XXXXXX")
    # shellcheck disable=SC2064 # the folder of now
    trap "rm -rf '$work'" EXIT
    mkdir "$work/tree"
    chmod 0755 "$work/tree"
    "$here/$name.sh" tree "$work/tree"
    read -ra options <<<"$("$here/$name.sh" mkfs)"
    "$here/pack.sh" "$work/tree" "$image" "$inputs" ${options[@]+"${options[@]}"}
    write_manifest "$image" "$inputs" "guest/images/$name.sh"
    say "$name: built in $(show_seconds), $(du -h --apparent-size "$image" | cut -f1)"
}

main "$@"
