#!/bin/bash
# The image `base`: a small Debian with what E2B clients expect to find, and nothing else.
#
# usage: base.sh prepare      bootstraps the distribution unless the cache has it
#        base.sh inputs       what the result depends on
#        base.sh tree DIR     unpacks the tree into DIR
#        base.sh mkfs         options for packing
#   FLAMES_REFRESH=1         bootstraps again, to take updates of the distribution in
#
# Package versions are resolved once per recipe (this file and base-customize.sh) and then stay, so that builds are quick, repeatable and
# work offline; updates come in when asked for. The bootstrapped tree is a tar named by recipe and package versions.
set -euo pipefail
. "$(dirname "$0")/../../scripts/lib.sh"

codename=bookworm
archive=$cache/images/base

# bash, coreutils, tput, terminfo and C.UTF-8 are essential packages and need no mention.
packages=(
    ca-certificates curl        # HTTPS from the guest
    git                         # with `git daemon`
    iproute2 procps             # ss, ip, ps, pgrep: ready checks
    libnss-myhostname           # a sandbox's name resolves without a line in /etc/hosts, so sudo does not complain
    login mount passwd sudo     # users, and root without a password for `user`
    netbase                     # /etc/services and /etc/protocols
    python3 python-is-python3   # both names
)

# What an image for programs does without; copyright notices stay.
unwanted=(
    '/usr/share/doc/*' '/usr/share/man/*' '/usr/share/info/*' '/usr/share/lintian/*' '/usr/share/bug/*'
    '/usr/share/locale/*' '/usr/share/git-core/contrib/*'
)

prepare() {
    require_tool mmdebstrap mmdebstrap
    mkdir -p "$archive"
    [ -z "${FLAMES_REFRESH:-}" ] && [ -s "$(resolved)" ] && [ -f "$(tarball)" ] && return
    bootstrap
}

inputs() {
    recipe
    cat "$(resolved)"
}

# Uncompressed, 198 MB. lz4 halves the file, but unpacking it in software emulation costs a cold boot to the first line of
# bash 45 to 90 ms of 465, and starting python, git and curl another 130 to 380 ms of 2.1 s.
mkfs() { :; }

tree() {
    tar -C "$1" --numeric-owner --exclude='./dev/*' -xf "$(tarball)"
    cp "$root"/guest/images/common/etc/* "$1/etc/"
}

recipe() { cat "$root"/guest/images/base*.sh | hash_text; }

# The packages with their versions, as resolved by the last bootstrap of this recipe.
resolved() { echo "$archive/$(recipe).packages"; }

tarball() { echo "$archive/$(inputs | hash_text).tar"; }

bootstrap() {
    local work
    work=$(mktemp -d "$archive/bootstrap.XXXXXX")
    # shellcheck disable=SC2064 # the folder of now
    trap "rm -rf '$work'" EXIT
    sources >"$work/sources.list"
    say "base: bootstrapping Debian $codename (log: $archive/bootstrap.log)"
    run_mmdebstrap "$work" 2>"$archive/bootstrap.log" || bootstrap_failed
    tar -xOf "$work/base.tar" ./var/lib/dpkg/status | package_versions >"$work/packages"
    mv "$work/packages" "$(resolved)"
    mv "$work/base.tar" "$(tarball)"
    say "base: bootstrapped in $(show_seconds), $(wc -l <"$(resolved)") packages"
}

bootstrap_failed() {
    tail -n 20 "$archive/bootstrap.log" >&2
    die "mmdebstrap failed; the whole log is $archive/bootstrap.log"
}

package_versions() {
    awk '/^Package: / { package = $2 } /^Version: / { print package, $2 }' | LC_ALL=C sort
}

# The mirror is the one this machine's own apt uses.
sources() {
    local lines
    lines=$(apt-get indextargets --format '$(ORIGIN) $(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
        awk -v codename="$codename" '$1 == "Debian" && ($3 == codename || index($3, codename "-") == 1) {
            if ($3 !~ /backports/) print "deb", $2, $3, $4 }' | sort -u)
    [ -n "$lines" ] || die "apt on this machine knows no Debian $codename (or its lists are empty: \`apt-get update\`)"
    printf '%s\n' "$lines"
}

run_mmdebstrap() {
    local work=$1 options=() path line
    for path in "${unwanted[@]}"; do options+=("--dpkgopt=path-exclude=$path"); done
    options+=('--dpkgopt=path-include=/usr/share/doc/*/copyright')
    while IFS= read -r line; do options+=("--aptopt=$line"); done < <(fetch_settings)
    SOURCE_DATE_EPOCH=1735689600 PYTHONHASHSEED=0 LC_ALL=C mmdebstrap --variant=apt --format=tar \
        --include="$(IFS=,; echo "${packages[*]}")" "${options[@]}" \
        --customize-hook="'$root/guest/images/base-customize.sh' \"\$1\"" \
        "$codename" "$work/base.tar" "$work/sources.list"
}

# A proxy, or a clock that the mirror's dates do not fit, is this machine's matter and needed to fetch; the hook takes it out.
fetch_settings() {
    apt-config dump | grep -E '^Acquire::(Check-|Retries|http|https)' || true
}

"$@"
