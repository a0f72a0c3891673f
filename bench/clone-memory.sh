#!/bin/sh
# Own memory of clones: private pages of the VMM, in MiB, of five clones each of a sandbox in which one command ran.
# usage: bench/clone-memory.sh   (with a daemon that runs; FLAMES names another program than `flames`)
set -eu
flames=${FLAMES:-flames}

private() {
    for id in "$@"; do
        pid=$($flames --json inspect "$id" | sed -n 's/.*"pid": *\([0-9]*\).*/\1/p' | head -1)
        awk '/^Private_/ {kib += $2} END {printf " %.1f", kib / 1024}' "/proc/$pid/smaps_rollup"
    done
    echo
}

in_each() {
    command=$1
    shift
    for id in "$@"; do $flames exec -n -u root "$id" -- sh -c "$command"; done
}

work='ls -lR /etc /usr/bin > /tmp/list; sha256sum /bin/* /usr/bin/* > /tmp/sums 2> /dev/null; sync'
for template in mini base; do
    for memory in 256 512; do
        source=$($flames create -t $template --memory $memory --timeout 600)
        in_each true "$source"
        echo "$template, $memory MiB"
        echo "  booted, one command:$(private "$source")"
        snapshot=$($flames snapshot create "$source")
        clones=
        for _ in 1 2 3 4 5; do clones="$clones $($flames create --from-snapshot "$snapshot")"; done
        echo "  clones, idle:$(private $clones)"
        in_each true $clones
        echo "  clones, one command:$(private $clones)"
        in_each "$work || true" $clones
        echo "  clones, some work:$(private $clones)"
        if [ $template = base ]; then
            in_each "python3 -c 'import asyncio, json, ssl, urllib.request'" $clones
            echo "  clones, Python with its libraries:$(private $clones)"
        fi
        $flames rm "$source" $clones > /dev/null
        $flames snapshot rm "$snapshot" > /dev/null
    done
done
