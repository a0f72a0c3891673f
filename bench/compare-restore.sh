#!/usr/bin/env bash
# Creates from a snapshot, or from the warm pool, beside the floor of plain QEMU, in turns in one sitting.
#
#   bench/compare-restore.sh [ROUNDS] [CREATES] [TEMPLATE] [LEVEL]...
#
# ROUNDS (3) times: bench/restore-floor.py with CREATES (20) clones each way, then `flames bench create` with as many
# creates one after another at each LEVEL (instant), against a daemon in a process of its own. Without a warm pool
# `instant` restores the template's snapshot; the daemon reads FLAMES_CONFIG, which may name a pool. Prints medians, p99 and the ratio of creates to first output to the floor. Results stay in RESULTS, if it is set.
#
# Needs root, QEMU, Python 3 and assets (`make assets`). FLAMES names the program (default: the release build),
# PRINTER the example `command-line` of flames-vmm-qemu, FLAMES_ARGS what else the daemon gets.
set -euo pipefail

rounds=${1:-3} creates=${2:-20} template=${3:-mini}
shift $(($# < 3 ? $# : 3))
levels=("${@:-instant}")
here=$(cd "$(dirname "$0")" && pwd)
flames=${FLAMES:-${CARGO_TARGET_DIR:-$here/../target}/release/flames}
printer=()
[ -z "${PRINTER:-}" ] || printer=(--printer "$PRINTER")
export FLAMES_ASSETS=${FLAMES_ASSETS:-$here/../build/assets}

work=$(mktemp -d /tmp/fl-cmp.XXXXXX)
results=${RESULTS:-$work/results}
mkdir -p "$results"
export FLAMES_DATA_DIR=$work/d FLAMES_RUNTIME_DIR=$work/r
daemon=
finish() {
    if [ -n "$daemon" ]; then
        "$flames" ls --json 2>/dev/null | python3 -c 'import json,sys; print(*[s["id"] for s in json.load(sys.stdin)])' |
            xargs -r "$flames" rm >/dev/null 2>&1 || true
        kill "$daemon" 2>/dev/null || true
        wait "$daemon" 2>/dev/null || true
    fi
    rm -rf "$work"
}
trap finish EXIT

# shellcheck disable=SC2086 # words on purpose
"$flames" up --listen 127.0.0.1:0 ${FLAMES_ARGS:-} >"$work/daemon.log" 2>&1 &
daemon=$!
until "$flames" ls >/dev/null 2>&1; do
    kill -0 "$daemon" 2>/dev/null || { cat "$work/daemon.log" >&2; exit 1; }
    sleep 0.1
done

# The first create at a level may have to make the template's snapshot: that is no part of the figures.
for level in "${levels[@]}"; do
    "$flames" bench create -n 2 -t "$template" --level "$level" >/dev/null
done
for round in $(seq "$rounds"); do
    "$here/restore-floor.py" -n "$creates" --template "$template" "${printer[@]}" --json >"$results/floor-$round.json"
    for level in "${levels[@]}"; do
        "$flames" bench create -n "$creates" -t "$template" --level "$level" --save "$results/$level-$round.json" >/dev/null ||
            echo "round $round: creates at level $level did not all succeed" >&2
    done
done

python3 - "$results" "$rounds" "${levels[@]}" <<'PYTHON'
import json, sys
from pathlib import Path

results, rounds, levels = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
print(f"{'ROUND':8}{'WHAT':34}{'P50 MS':>9}{'P99 MS':>9}{'TO FLOOR':>10}{'STARTED':>9}  PATHS")
for round in range(1, rounds + 1):
    floor = json.loads((results / f"floor-{round}.json").read_text())["results"][0]["ms"]
    for way in ["reply", "command", "reply, started", "command, started"]:
        print(f"{round:<8}{'plain QEMU, ' + way:34}{floor[way]['p50']:9.1f}{floor[way]['p99']:9.1f}")
    for level in levels:
        report = json.loads((results / f"{level}-{round}.json").read_text())
        rows = {row["name"]: row for row in report["latencies"]}
        for name in ["create", "create to first output"]:
            if name not in rows:
                continue
            row, ratio = rows[name], ""
            if name == "create to first output":
                to = [row["p50_ms"] / floor[way]["p50"] for way in ("command", "command, started")]
                ratio = f"{to[0]:10.2f}{to[1]:9.2f}  {report['paths'] or ''}"
            print(f"{round:<8}{level + ', ' + name:34}{row['p50_ms']:9.1f}{row['p99_ms']:9.1f}{ratio}")
PYTHON
