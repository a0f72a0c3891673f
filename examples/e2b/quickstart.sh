#!/bin/bash
# Runs a command in a sandbox with E2B's command line. E2B_API_URL, E2B_SANDBOX_URL and E2B_API_KEY say where.
set -euo pipefail

created=$(e2b sandbox create base --detach)
id=$(grep -oE '\bi[a-z0-9]{20}\b' <<<"$created" | head -n 1)
trap 'e2b sandbox kill "$id"' EXIT
e2b sandbox list
e2b sandbox exec "$id" echo hello from inside
