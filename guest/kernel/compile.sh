#!/bin/sh
# Compiles the guest kernel in an empty directory: unpack, patch, configure, make, strip.
#
# usage: compile.sh TARBALL WORKDIR OUTPUT
#
# This file, the fragment and the patches decide what comes out; build.sh hashes them and adds cache, lock and progress.
# Keep everything else out of here: each change of this file costs everybody a kernel build.
set -eu

tarball=$1
work=$2
output=$3
here=$(cd "$(dirname "$0")" && pwd)
fragment=$here/flames.config

# Same input, same bytes: nothing of the builder's machine, user or clock may reach the image.
export LC_ALL=C TZ=UTC ARCH=x86_64
export KBUILD_BUILD_TIMESTAMP='2025-01-01 00:00:00 UTC' KBUILD_BUILD_USER=flames KBUILD_BUILD_HOST=flames KBUILD_BUILD_VERSION=1
unset MAKEFLAGS MAKELEVEL CFLAGS KCFLAGS LDFLAGS CROSS_COMPILE

main() {
    tar -C "$work" --strip-components=1 -xf "$tarball"
    cd "$work"
    for change in "$here"/*.patch; do
        patch --quiet -p1 --fuzz=0 <"$change"
    done
    configure
    require_options
    make -j"$(nproc)" vmlinux
    strip --strip-all -o "$output" vmlinux
}

configure() {
    make --quiet tinyconfig
    scripts/kconfig/merge_config.sh -m .config "$fragment" >merge.log
    make --quiet olddefconfig
}

# Kconfig drops an option without a word when a dependency is missing. A kernel without, say, virtio-net would be
# found out much later, so every line of the fragment is compared with what is really in force.
require_options() {
    missing=$(unmet_options)
    [ -z "$missing" ] && return
    printf 'error: these options of %s are not in force (a dependency is missing, or the name is wrong):\n%s\n' \
        "$fragment" "$missing" >&2
    exit 1
}

unmet_options() {
    grep '^CONFIG_' "$fragment" | while IFS= read -r line; do
        option=${line%%=*}
        case $line in
        *=n) ! grep -q "^$option=" .config || echo "  $line" ;;
        *) grep -qxF "$line" .config || echo "  $line" ;;
        esac
    done
}

main
