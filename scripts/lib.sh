# Shared by the build scripts: where the cache and the assets are, locks, hashes, messages. Source it; it runs nothing.
#
# An asset (kernel, agent, image) is made once per hash of its inputs and kept in the cache; build/assets/ of a checkout
# holds only links to what that checkout needs now, and beside each link a manifest that says what the file is.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${FLAMES_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/flames}
assets=${FLAMES_ASSETS:-$root/build/assets}

say() { printf '%s\n' "$*" >&2; }

die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# require_tool TOOL PACKAGE: ends with the name of the package when the tool is missing.
require_tool() {
    command -v "$1" >/dev/null && return
    die "\`$1\` is missing; install the package $2 (\`make deps\` installs everything that is missing)"
}

# hash_text: the sha256 of standard input, short enough for a folder name, long enough never to collide.
hash_text() { sha256sum | cut -c1-32; }

# hash_file FILE: its full sha256.
hash_file() { sha256sum -- "$1" | cut -d' ' -f1; }

# lock NAME: waits until no other build of NAME runs on this cache; held until this process ends.
lock() {
    mkdir -p "$cache/locks"
    exec 9>"$cache/locks/$1"
    flock --nonblock 9 && return
    say "$1: another build is running, waiting for it"
    flock 9
}

# write_manifest FILE INPUTS BUILT_FROM [KEY VALUE]...: FILE.json, what a program may want to know of FILE.
write_manifest() {
    local file=$1 inputs=$2 built_from=$3
    shift 3
    {
        printf '{\n  "sha256": "%s",\n  "inputs": "%s",\n' "$(hash_file "$file")" "$inputs"
        printf '  "bytes": %s,\n' "$(stat -c %s "$file")"
        while [ $# -ge 2 ]; do
            printf '  "%s": "%s",\n' "$1" "$2"
            shift 2
        done
        printf '  "builtFrom": "%s"\n}\n' "$built_from"
    } >"$file.json.part"
    mv "$file.json.part" "$file.json"
}

# publish FILE NAME: makes FILE of the cache, with its manifest, the checkout's asset NAME. A link is replaced by
# rename, so a program that opens it at this moment finds the old file or the new one.
publish() {
    link "$1.json" "$assets/$2.json"
    link "$1" "$assets/$2"
}

link() {
    [ "$(readlink "$2")" = "$1" ] && return
    mkdir -p "$(dirname "$2")"
    ln -sfn "$1" "$2.new.$$"
    mv -T "$2.new.$$" "$2"
}

# show_seconds: how long this script has been running, for messages.
show_seconds() { printf '%d s' "$SECONDS"; }
