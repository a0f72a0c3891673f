#!/bin/bash
# Builds the guest kernel, or finds it in the cache, and links it as the asset `vmlinux`.
#
# usage: build.sh
#   FLAMES_CACHE         where builds are kept (default ~/.cache/flames)
#   FLAMES_KEEP_BUILD=1  keeps the build folder (1.7 GB) for a look inside
#
# The first build takes 660 CPU seconds; after that only a change of the source package, the fragment, a patch,
# compile.sh or the compiler builds again. What is compiled and how is in compile.sh.
set -euo pipefail
. "$(dirname "$0")/../../scripts/lib.sh"

here=$root/guest/kernel
source_package=linux-source-6.12
tarball=/usr/src/$source_package.tar.xz
# How many objects the build has at present: only the progress display needs it.
expected_objects=1900

main() {
    require_inputs
    inputs=$(hash_inputs)
    vmlinux=$cache/kernel/$inputs/vmlinux
    [ -f "$vmlinux.json" ] || build
    publish "$vmlinux" vmlinux
}

require_inputs() {
    [ -f "$tarball" ] || die "$tarball is missing; install the package $source_package (\`make deps\` does)"
    require_tool gcc gcc
    require_tool make make
    require_tool flex flex
    require_tool bison bison
    require_tool bc bc
    require_tool xz xz-utils
    require_tool patch patch
    require_tool strip binutils
    require_header gelf.h libelf-dev
    require_header openssl/opensslv.h libssl-dev
}

require_header() {
    echo "#include <$1>" | gcc -E - >/dev/null 2>&1 || die "the header <$1> is missing; install the package $2"
}

hash_inputs() {
    {
        dpkg-query -W -f '${Package} ${Version}\n' "$source_package" gcc binutils
        tarball_hash
        gcc --version | head -n 1
        cd "$here" && sha256sum flames.config ./*.patch compile.sh
    } | hash_text
}

# Hashing 150 MB takes longer than everything else of a run with full caches, so the hash is kept per size and time.
tarball_hash() {
    local memo
    memo=$cache/kernel/tarball-$(stat -c %s-%Y "$tarball").sha256
    if [ ! -s "$memo" ]; then
        mkdir -p "$cache/kernel"
        hash_file "$tarball" >"$memo.$$"
        mv "$memo.$$" "$memo"
    fi
    cat "$memo"
}

build() {
    lock kernel
    [ -f "$vmlinux.json" ] && return
    work=$cache/kernel/build
    log=$cache/kernel/build.log
    rm -rf "$work"
    mkdir -p "$work"
    trap 'remove_work' EXIT
    say "kernel: building from $tarball with $(nproc) processors (log: $log)"
    "$here/compile.sh" "$tarball" "$work" "$work/vmlinux.stripped" 2>&1 | tee "$log" | show_progress || build_failed
    store
    say "kernel: built in $(show_seconds), $(du -h --apparent-size "$vmlinux" | cut -f1)"
}

# One line that is rewritten on a terminal; a line per 200 objects where the output goes to a log.
show_progress() {
    local done=0 line
    while IFS= read -r line; do
        case $line in
        '  CC '* | '  AS '* | '  AR '*) done=$((done + 1)) ;;
        *) continue ;;
        esac
        if [ -t 2 ]; then
            printf '\rkernel: %d of about %d objects, %d s ' "$done" "$expected_objects" "$SECONDS" >&2
        elif [ $((done % 200)) = 0 ]; then
            say "kernel: $done of about $expected_objects objects, $(show_seconds)"
        fi
    done
    [ ! -t 2 ] || printf '\n' >&2
}

build_failed() {
    tail -n 25 "$log" >&2
    die "the kernel build failed; the whole log is $log"
}

# The manifest is written last and looked for first: a folder without it is not a finished build.
store() {
    local folder
    folder=$(dirname "$vmlinux")
    mkdir -p "$folder"
    cp "$work/.config" "$folder/config"
    mv "$work/vmlinux.stripped" "$vmlinux"
    write_manifest "$vmlinux" "$inputs" "$(dpkg-query -W -f '${Package} ${Version}' "$source_package")" \
        release "$(cat "$work/include/config/kernel.release")"
}

remove_work() {
    [ -n "${FLAMES_KEEP_BUILD:-}" ] && say "kernel: build folder kept: $work" && return
    rm -rf "$work"
}

main
