#!/bin/bash
# The image `code-interpreter-v1`: `base`, IPython kernels, and the server that E2B's code interpreter clients speak to.
#
# usage: code-interpreter-v1.sh prepare      bootstraps `base` and downloads the packages unless the cache has them
#        code-interpreter-v1.sh inputs       what the result depends on
#        code-interpreter-v1.sh tree DIR     makes the tree in DIR
#        code-interpreter-v1.sh mkfs         options for packing
#
# The packages come from PyPI, pinned by version and hash in code-interpreter-v1/requirements.txt; the server is beside it.
set -euo pipefail
. "$(dirname "$0")/../../scripts/lib.sh"

source=$root/guest/images/code-interpreter-v1
base=$root/guest/images/base.sh
archive=$cache/images/code-interpreter-v1
# Debian's python3 reads what is local from here.
packages=usr/local/lib/python3.11/dist-packages

prepare() {
    "$base" prepare
    [ ! -f "$(wheels)/whole" ] || return 0
    require_tool python3 python3-venv
    say "code-interpreter-v1: downloading packages from PyPI"
    rm -rf "$(wheels)"
    mkdir -p "$(wheels)"
    pip download --quiet --dest "$(wheels)" --require-hashes "${for_the_image[@]}" >&2
    touch "$(wheels)/whole"
}

inputs() {
    "$base" inputs
    cd "$source" && find . -type f -not -name '*.pyc' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
}

# As with `base`.
mkfs() { :; }

tree() {
    cd "$1"
    "$base" tree .
    mkdir -p "$packages"
    pip install --quiet --target "$packages" --no-index --find-links "$(wheels)" --no-compile "${for_the_image[@]}" >&2
    # Programs and manual pages: they name this machine's Python, and so does what is written of them.
    rm -rf "${packages:?}"/{bin,share}
    sed -i -E '\#^\.\./\.\./(bin|share)/#d' "$packages"/*.dist-info/RECORD
    install -D -m 0644 -t "$packages/flames_code_interpreter" "$source"/flames_code_interpreter/*.py
    compile
    commands
    for_pip
}

# The image's Python and processor, not those of this machine.
for_the_image=(
    --no-deps --only-binary=:all: --python-version 3.11 --implementation cp
    --platform manylinux_2_28_x86_64 --platform manylinux_2_26_x86_64 --platform manylinux2014_x86_64
    --platform manylinux2010_x86_64 --requirement "$source/requirements.txt"
)

wheels() { echo "$archive/wheels-$(hash_text <"$source/requirements.txt")"; }

# A pip of its own, which Debian's python3 has in a virtual environment alone.
pip() {
    [ -x "$archive/venv/bin/pip" ] || python3 -m venv "$archive/venv"
    "$archive/venv/bin/pip" --disable-pip-version-check "$@"
}

# Byte code, as in `base`: by the image's own Python, which needs no root this way.
compile() {
    local libraries=lib/x86_64-linux-gnu:usr/lib/x86_64-linux-gnu
    env -i PYTHONHOME=usr PYTHONHASHSEED=0 lib64/ld-linux-x86-64.so.2 --library-path "$libraries" \
        usr/bin/python3.11 -m compileall -q -f -s "$PWD" --invalidation-mode unchecked-hash "$PWD/$packages"
}

# A start command is root's, and the code that runs is the user's.
commands() {
    printf '#!/bin/sh\n%s\n' 'cd /home/user && exec setpriv --reuid=user --regid=user --init-groups --reset-env \
    env LANG=C.UTF-8 PATH="$PATH" python3 -m flames_code_interpreter' >usr/local/bin/code-interpreter
    printf '#!/bin/sh\n%s\n' 'exec python3 -m pip "$@"' >usr/local/bin/pip
    chmod 0755 usr/local/bin/{code-interpreter,pip}
    chown -R 0:0 usr/local
}

# Code may install what it needs. The user's folder is there from the start: kernels look for it once.
for_pip() {
    rm usr/lib/python3.11/EXTERNALLY-MANAGED
    install -d -o 1000 -g 1000 home/user/.local{,/lib,/lib/python3.11,/lib/python3.11/site-packages}
}

"$@"
