#!/bin/bash
# Installs the clients of E2B that the tests use, unmodified, at pinned versions, into the cache, and
# makes `clients` of the assets a link to them.
#
# usage: install-clients.sh
# environment: FLAMES_CLIENTS=newest takes the newest of each that the registries have today, beside the pinned ones; the
# assets' `clients-newest` leads there, and tests that are run with the same variable use it.
#
# The folder is named after what is in it, so a second call is quick. It holds `python` and `python-old` (virtual
# environments) and `js/node_modules`. Without a registry, or without python3 or npm, nothing is installed: the tests that
# need it skip themselves loudly, or fail when FLAMES_REQUIRE names e2b-clients.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

# The newest when this was written, and the one that most programs had before it.
python_new=2.63.0
python_old=2.45.1
python_code=2.11.5
js=2.51.0
js_code=2.8.0
cli=2.19.0

main() {
    link=clients
    [ "${FLAMES_CLIENTS:-pinned}" = pinned ] || newest
    folder=$cache/clients/$(printf '%s\n' "$python_new" "$python_old" "$python_code" "$js" "$js_code" "$cli" | hash_text)
    lock clients
    [ -f "$folder/whole" ] || install_all
    link "$folder" "$assets/$link"
}

# The newest versions, by name: a day's newest is installed once, and the next day's beside it.
newest() {
    [ "$FLAMES_CLIENTS" = newest ] || die "FLAMES_CLIENTS must be pinned or newest, and is $FLAMES_CLIENTS"
    require_tool npm npm
    link=clients-newest
    python_new=$(python_newest e2b)
    python_code=$(python_newest e2b-code-interpreter)
    js=$(npm view e2b version)
    js_code=$(npm view @e2b/code-interpreter version)
    cli=$(npm view @e2b/cli version)
    say "clients: the newest are $(versions)"
}

# PyPI's newest of a package, as pip would choose it.
python_newest() {
    require_tool python3 python3-venv
    python3 -m pip --disable-pip-version-check index versions "$1" 2>/dev/null | sed -n "s/^$1 (\(.*\))\$/\1/p"
}

versions() {
    echo "e2b $python_new and e2b-code-interpreter $python_code (PyPI)," \
        "e2b $js, @e2b/code-interpreter $js_code and @e2b/cli $cli (npm)"
}

install_all() {
    require_tool python3 python3-venv
    require_tool npm npm
    say "clients: installing e2b $python_old (PyPI) and $(versions)"
    rm -rf "$folder"
    mkdir -p "$folder/js"
    python_client python "e2b==$python_new" "e2b-code-interpreter==$python_code"
    python_client python-old "e2b==$python_old"
    (cd "$folder/js" && npm init --yes &&
        npm install --no-audit --no-fund "e2b@$js" "@e2b/code-interpreter@$js_code" "@e2b/cli@$cli") >&2
    touch "$folder/whole"
}

# python_client NAME REQUIREMENT...: a folder is filled where it stays, for virtual environments do not like to be moved.
python_client() {
    local name=$1
    shift
    python3 -m venv "$folder/$name"
    "$folder/$name/bin/pip" --quiet --disable-pip-version-check install "$@" >&2
}

main "$@"
