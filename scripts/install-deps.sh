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
test_packages=(postgresql redis-server nats-server caddy nginx iproute2 git curl python3-venv)

# Clients of E2B. Another build of node brings its own npm, and Debian's would fight with it.
command -v npm >/dev/null || test_packages+=(nodejs npm)

policy=/usr/sbin/policy-rc.d
policy_mark='# written by flames install-deps.sh'

main() {
    [ $# -gt 0 ] || set -- run build test
    require_known "$@"
    require_rust
    mapfile -t missing < <(missing_packages "$@")
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null || die "this is no Debian; install what these packages hold: ${missing[*]}"
    require_root "$@"
    install_missing
}

require_known() {
    local set
    for set in "$@"; do
        case $set in run | build | test) ;; *) die "no such set of packages: $set; there are: run build test" ;; esac
    done
}

require_rust() {
    command -v cargo >/dev/null && return
    die "no Rust toolchain: install rustup (https://rustup.rs), then \`rustup toolchain install stable\`, and see that ~/.cargo/bin is in PATH"
}

missing_packages() {
    local set
    for set in "$@"; do
        declare -n packages=${set}_packages
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
    local links_before
    say "installing: ${missing[*]}"
    links_before=$(boot_links)
    forbid_service_starts
    trap allow_service_starts EXIT
    export DEBIAN_FRONTEND=noninteractive
    apt-get -q update >&2 || die "\`apt-get update\` failed: the reason is above; mend the apt sources and try again"
    apt-get -q install -y --no-install-recommends "${missing[@]}" >&2 || die "\`apt-get install\` failed: the reason is above"
    remove_boot_links "$(comm -13 <(echo "$links_before") <(boot_links))"
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

# boot_links: what would start at boot, or when asked for by name: systemd's links and those of the older rc folders.
boot_links() {
    { find /etc/systemd/system -type l; find /etc/rc[2-5].d -name 'S*'; } 2>/dev/null | sort
}

# remove_boot_links LINKS: as `systemctl disable` does it, but also where systemd is not installed. Debian's packages
# take a missing link for the administrator's wish and leave it so when they are upgraded.
remove_boot_links() {
    local link
    for link in $1; do
        case $link in
        /etc/rc*) [ ! -e "$link" ] || update-rc.d "${link##*/S??}" disable >/dev/null 2>&1 ;;
        *) rm -f "$link" ;;
        esac
    done
}

main "$@"
