#!/bin/bash
# Runs every test of the workspace and sums up: what was skipped and why, and last one line of figures.
#
# usage: run-tests.sh [CARGO_OPTION]...      which packages, default --workspace
# cargo-nextest is used when it is there; plain `cargo test` otherwise, without its limit on concurrent microVMs.
set -uo pipefail
. "$(dirname "$0")/lib.sh"

main() {
    [ $# -gt 0 ] || set -- --workspace
    selection=("$@")
    cd "$root" || exit 1
    log=$root/build/test.log
    report=$root/build/nextest/ci/junit.xml
    mkdir -p "$root/build"
    rm -f "$report" "$log"
    unit_tests
    unit_status=$?
    doc_tests
    doc_status=$?
    sum_up
    [ "$unit_status" = 0 ] && [ "$doc_status" = 0 ]
}

unit_tests() {
    if command -v cargo-nextest >/dev/null; then
        phase compile cargo nextest run "${selection[@]}" --profile ci --no-run &&
            phase tests cargo nextest run "${selection[@]}" --profile ci
    else
        say "cargo-nextest is not installed: running \`cargo test\` instead"
        phase tests cargo test "${selection[@]}" --lib --bins --tests --no-fail-fast -- --show-output --test-threads=2
    fi
}

doc_tests() {
    phase doc-tests cargo test "${selection[@]}" --doc --no-fail-fast --quiet
}

phase() { "$root/scripts/phase.sh" "$@" 2>&1 | tee -a "$log"; }

sum_up() {
    local skips passed failed skipped ignored
    skips=$(skips)
    skipped=$(grep -c . <<<"$skips")
    [ "$skipped" = 0 ] || printf '\nSkipped, and why:\n%s\n' "$(sort <<<"$skips" | sed 's/^/  /')"
    passed=$(($(nextest_count passed) + $(libtest_count passed) - skipped))
    failed=$(($(nextest_count failed) + $(nextest_count 'timed out') + $(libtest_count failed)))
    ignored=$(($(nextest_count skipped) + $(libtest_count ignored)))
    # A build that fails runs no test at all, and that is no success of zero tests.
    [ "$failed" -gt 0 ] || [ $((unit_status + doc_status)) = 0 ] || failed=1
    [ "$passed" -ge 0 ] || passed=0
    printf '%d passed, %d failed, %d skipped\n' "$passed" "$failed" $((skipped + ignored))
}

# Lines `test: reason`, one per test that skipped itself: from nextest's report, or from what `cargo test` showed.
skips() {
    if [ -f "$report" ]; then
        awk '
            /<testcase / { test = $0; sub(/.*<testcase name="/, "", test); sub(/".*/, "", test); told = 0 }
            /SKIPPED: / && !told { sub(/.*SKIPPED: /, ""); sub(/<.*/, ""); print test ": " $0; told = 1 }
        ' "$report" | sed "s/&quot;/\"/g; s/&apos;/'/g; s/&lt;/</g; s/&gt;/>/g; s/&amp;/\&/g"
    else
        sed -n 's/.*SKIPPED: //p' "$log"
    fi
}

# nextest_count WORD: N of "N WORD" in nextest's own summary line.
nextest_count() {
    plain_log | grep -E '^ *Summary ' | tail -n 1 | grep -oE "[0-9]+ $1" | awk '{ n = $1 } END { print n + 0 }'
}

# libtest_count WORD: sum over the lines "test result: ...; N WORD" (doc tests, or all tests without nextest).
libtest_count() {
    plain_log | grep -E '^test result: ' | grep -oE "[0-9]+ $1" | awk '{ n += $1 } END { print n + 0 }'
}

plain_log() { sed 's/\x1b\[[0-9;]*m//g' "$log"; }

main "$@"
