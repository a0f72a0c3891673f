#!/bin/bash
# Last touches to the bootstrapped tree of `base`, called by mmdebstrap with the tree's path.
#
# What would be the same in all clones of a snapshot, and must not be, is not in the image: machine id, host name,
# ssh keys, seeds. So is everything that differs from build to build.
set -euo pipefail

tree=$1

main() {
    add_user
    speed_up_login
    compile_python
    remove_identity
    remove_traces
}

add_user() {
    chroot "$tree" useradd --create-home --shell /bin/bash --user-group --uid 1000 user
    printf 'user ALL=(ALL:ALL) NOPASSWD: ALL\n' >"$tree/etc/sudoers.d/user"
    chmod 0440 "$tree/etc/sudoers.d/user"
    # No name server is asked for the sandbox's own name.
    sed -i 's/^hosts:.*/hosts: files myhostname dns/' "$tree/etc/nsswitch.conf"
}

# Clients run each command in a login shell. Debian's profile starts a program to learn the user's id; bash knows it.
speed_up_login() {
    sed -i 's/\$(id -u)/${EUID:-$(id -u)}/' "$tree/etc/profile"
    grep -qF '${EUID:-$(id -u)}' "$tree/etc/profile"
}

# Byte code that is valid whatever the time of its source: file times in the image are all the same, and compiling at
# run time would cost every first import in every sandbox.
compile_python() {
    chroot "$tree" python3 -m compileall -q -f --invalidation-mode unchecked-hash \
        /usr/lib/python3 /usr/lib/python3.11
}

remove_identity() {
    rm -f "$tree"/etc/machine-id "$tree"/var/lib/dbus/machine-id "$tree"/etc/hostname
    rm -f "$tree"/etc/ssh/ssh_host_* "$tree"/var/lib/systemd/random-seed
}

remove_traces() {
    rm -f "$tree"/etc/apt/apt.conf.d/99mmdebstrap "$tree"/etc/resolv.conf
    rm -f "$tree"/etc/{passwd,group,shadow,gshadow,subuid,subgid}- "$tree"/var/lib/dpkg/*-old
    rm -rf "$tree"/var/cache/ldconfig "$tree"/var/cache/debconf/*-old "$tree"/var/cache/apt/*.bin
    find "$tree/var/log" -type f -delete
}

main
