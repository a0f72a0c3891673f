#!/bin/bash
# The image `mini`: one static busybox, its applets, two users. For tests, benchmarks and jobs that bring a static binary.
#
# usage: mini.sh prepare      nothing to do
#        mini.sh inputs       what the result depends on
#        mini.sh tree DIR     makes the tree in DIR
#        mini.sh mkfs         options for packing
set -euo pipefail
. "$(dirname "$0")/../../scripts/lib.sh"

busybox=/usr/bin/busybox

prepare() { :; }

inputs() {
    require_static_busybox
    hash_file "$busybox"
}

require_static_busybox() {
    # On a merged /usr the file is /usr/bin/busybox, otherwise /bin/busybox.
    [ -x "$busybox" ] || busybox=/bin/busybox
    [ -x "$busybox" ] || die "busybox is missing; install the package busybox-static (\`make deps\` does)"
    ! readelf -l "$busybox" | grep -q INTERP || die "$busybox needs shared libraries; install busybox-static in its place"
}

# Uncompressed: the image is 2 MB, and decompression would run in software emulation.
mkfs() { :; }

tree() {
    require_static_busybox
    cd "$1"
    folders
    programs
    users
    cp "$root"/guest/images/common/etc/* etc/
    profile >etc/profile
}

folders() {
    mkdir -p bin sbin usr/bin usr/sbin dev proc sys run tmp etc root home/user mnt opt srv usr/local/bin var/tmp var/log
    ln -s ../run var/run
    chmod 0700 root
    chmod 1777 tmp var/tmp
    chown 1000:1000 home/user
}

programs() {
    local applet
    cp "$busybox" bin/busybox
    "$busybox" --list-full | while read -r applet; do
        [ -e "$applet" ] || ln -s /bin/busybox "$applet"
    done
    bash_command >bin/bash
    chmod 0755 bin/busybox bin/bash
    chown 0:0 bin/busybox bin/bash
}

# Clients run their commands by `/bin/bash -l -c`. Busybox answers to no such name, but its shell takes the same options.
bash_command() {
    printf '#!/bin/sh\nexec /bin/sh "$@"\n'
}

users() {
    printf '%s\n' 'root:x:0:0:root:/root:/bin/bash' 'user:x:1000:1000:user:/home/user:/bin/bash' \
        'nobody:x:65534:65534:nobody:/:/bin/false' >etc/passwd
    printf '%s\n' 'root:x:0:' 'tty:x:5:' 'user:x:1000:' 'nogroup:x:65534:' >etc/group
    printf '%s\n' 'root:*:20089:0:99999:7:::' 'user:*:20089:0:99999:7:::' >etc/shadow
    chmod 0640 etc/shadow
}

profile() {
    cat <<'PROFILE'
# Login shells keep what the sandbox was created with; only a bare environment gets defaults.
export PATH="${PATH:-/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin}"
PS1='\h:\w\$ '
PROFILE
}

"$@"
