#!/bin/bash
# Installs the Debian packages that are missing, and only those; silent and quick when nothing is.
#
# usage: install-deps.sh [run|build|test]...     default: all three
#
# Packages such as databases bring services that Debian starts at once and at every boot. The tests start servers of
# their own, so here nothing is started and nothing stays enabled that was not before.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

run_packages=(qemu-system-x86 qemu-system-data nftables e2fsprogs erofs-utils)
build_packages=(
    gcc g++ make pkg-config                                                   # Rust crates with C in them
    linux-source-6.12 flex bison bc libelf-dev libssl-dev xz-utils patch binutils # guest kernel
    mmdebstrap uidmap fakeroot busybox-static erofs-utils                     # images, also without root
)
test_packages=(postgresql redis-server nats-server caddy nginx iproute2 git curl)

policy=/usr/sbin/policy-rc.d
policy_mark='# written by flames install-deps.sh'

main() {
    [ $# -gt 0 ] || set -- run build test
    require_rust
    mapfile -t missing < <(missing_packages "$@")
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null || die "this is no Debian; install what these packages hold: ${missing[*]}"
    require_root "$@"
    install_missing
}

require_rust() {
    command -v cargo >/dev/null && return
    die "no Rust toolchain: install rustup (https://rustup.rs), then \`rustup toolchain install stable\`, and see that ~/.cargo/bin is in PATH"
}

missing_packages() {
    local set
    for set in "$@"; do
        declare -n packages=${set}_packages 2>/dev/null || die "no such set of packages: $set"
        printf '%s\n' "${packages[@]}"
    done | sort -u | comm -23 - <(installed_packages)
}

installed_packages() {
    dpkg-query -W -f '${db:Status-Status} ${Package}\n' 2>/dev/null | sed -n 's/^installed //p' | sort -u
}

require_root() {
    [ "$(id -u)" = 0 ] && return
    say "missing packages: ${missing[*]}"
    die "run once: sudo $root/scripts/install-deps.sh $*"
}

install_missing() {
    local enabled_before
    say "installing: ${missing[*]}"
    enabled_before=$(enabled_units)
    forbid_service_starts
    trap allow_service_starts EXIT
    export DEBIAN_FRONTEND=noninteractive
    apt-get -q update >&2 || die "\`apt-get update\` failed: the reason is above; mend the apt sources and try again"
    apt-get -q install -y --no-install-recommends "${missing[@]}" >&2 || die "\`apt-get install\` failed: the reason is above"
    disable_units "$(comm -13 <(echo "$enabled_before") <(enabled_units))"
}

# Debian's own switch: a policy-rc.d that answers 101 makes every package leave its service alone.
forbid_service_starts() {
    [ -e "$policy" ] && ! grep -qF "$policy_mark" "$policy" && mv "$policy" "$policy.flames-saved"
    printf '#!/bin/sh\n%s\nexit 101\n' "$policy_mark" >"$policy"
    chmod 0755 "$policy"
}

allow_service_starts() {
    rm -f "$policy"
    [ ! -e "$policy.flames-saved" ] || mv "$policy.flames-saved" "$policy"
}

# enabled_units: what systemd starts at boot, by the links that say so; works without a running systemd.
enabled_units() {
    find /etc/systemd/system -path '*.wants/*' -o -path '*.requires/*' 2>/dev/null | sed 's|.*/||' | sort -u
}

disable_units() {
    local unit
    for unit in $1; do
        if command -v systemctl >/dev/null; then
            systemctl --quiet disable "$unit" >/dev/null 2>&1 || say "could not disable $unit; it came with the packages"
        fi
    done
}

main "$@"
