#!/usr/bin/env python3
"""What the Python SDK of E2B waits for: create to the first command's output, and one more command.

usage: bench/e2b-sdk.py [N]     with e2b installed, and E2B_API_URL, E2B_SANDBOX_URL and E2B_API_KEY set

Beside each command, the same request's time to the agent's health call: what is outside of the guest's own work.
"""

import statistics
import sys
import time

from e2b import Sandbox

COUNT = int(sys.argv[1]) if len(sys.argv) > 1 else 20


def timed(call):
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1000


def row(name, times):
    times = sorted(times)
    p90 = times[int(len(times) * 0.9)]
    print(f"{name:36} n={len(times):<4} median {statistics.median(times):8.1f} ms   p90 {p90:8.1f} ms")


def create_and_run():
    sandbox = Sandbox.create("base", timeout=120)
    made.append(sandbox)
    sandbox.commands.run("echo hello")


made = []
row("create to first output", [timed(create_and_run) for _ in range(COUNT)])
for sandbox in made[1:]:
    sandbox.kill()
sandbox = made[0]
row("commands.run('true')", [timed(lambda: sandbox.commands.run("true")) for _ in range(5 * COUNT)])
row("is_running (agent's health)", [timed(sandbox.is_running) for _ in range(5 * COUNT)])
row("get_info (REST)", [timed(sandbox.get_info) for _ in range(5 * COUNT)])
sandbox.kill()
