#!/bin/bash
# Builds the guest agent and packs it as the asset `agent.erofs`, the disk every VM starts from.
#
# usage: build-agent.sh
#   FLAMES_AGENT_BINARY=FILE  packs this static binary instead of building one
#
# The kernel's root is this disk, so it holds the agent and the mount points that the agent needs before it has put the
# sandbox's own root together. Images stay free of the agent, and a new agent needs no new image.
set -euo pipefail
. "$(dirname "$0")/../../scripts/lib.sh"

here=$root/guest/images
target=x86_64-unknown-linux-gnu
mount_points=(proc sys dev run rom rw newroot)

main() {
    require_tool mkfs.erofs erofs-utils
    lock agent
    binary=${FLAMES_AGENT_BINARY:-}
    [ -n "$binary" ] || compile
    require_static "$binary"
    inputs=$(hash_inputs)
    image=$cache/agent/$inputs.erofs
    [ -f "$image.json" ] || pack
    publish "$image" agent.erofs
}

# Static, because the agent runs under any root file system; at a fixed address, because position independence
# would cost relocations at each boot.
compile() {
    require_tool cargo 'rustup (https://rustup.rs)'
    export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/target}
    (cd "$root" && RUSTFLAGS='-C target-feature=+crt-static -C relocation-model=static' \
        cargo build --quiet --profile guest -p flames-guest --features agent --bin flames-guest --target "$target")
    binary=$CARGO_TARGET_DIR/$target/guest/flames-guest
}

require_static() {
    [ -x "$1" ] || die "$1 is no program"
    readelf -hl "$1" >/dev/null || die "$1 is no ELF file"
    ! readelf -l "$1" | grep -q INTERP || die "$1 needs shared libraries; the agent must be static"
}

hash_inputs() {
    {
        hash_file "$binary"
        mkfs.erofs --version 2>&1 | head -n 1
        cd "$here" && sha256sum build-agent.sh pack.sh
    } | hash_text
}

pack() {
    mkdir -p "$(dirname "$image")"
    work=$(mktemp -d "$cache/agent/build.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    chmod 0755 "$work"
    (cd "$work" && mkdir "${mount_points[@]}")
    install -m 0755 "$binary" "$work/flames-guest"
    "$here/pack.sh" "$work" "$image" "$inputs" --all-root
    write_manifest "$image" "$inputs" "crates/flames-guest"
    say "agent: packed, $(du -h --apparent-size "$image" | cut -f1)"
}

main
