#!/usr/bin/env python3
"""What a restored guest makes QEMU translate until its first answers: the reason for most of a restore's time.

Software emulation translates a piece of code (a translation block) when it runs for the first time, and a clone begins
with none translated. Takes one snapshot as `bench/restore-floor.py` does, lets clones go on from it with QEMU's log of
translations (`-d in_asm`), and counts the blocks of each stage: in the kernel, in programs, and those that were
translated a second time. Unlike times, the counts hardly depend on what else the machine does; on a busy one the guest's
clock ticks more often, which is a few per cent.

    bench/translated.py [-n 3] [--template mini] [--settle SECONDS]   # --settle: rest of the guest before the snapshot

Needs Python 3, root and QEMU. Everything it makes, it removes. `--json` for programs.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
spec = importlib.util.spec_from_file_location("restore_floor", HERE / "restore-floor.py")
floor = importlib.util.module_from_spec(spec)
spec.loader.exec_module(floor)
plain = floor.plain

# Of an address: the kernel's half.
KERNEL = 1 << 47


def main():
    options = parse_options()
    with contextlib.ExitStack() as undo:
        place = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="translated-")))
        network = plain.Tap(undo)
        rest_before_snapshots(options.settle)
        snapshot = floor.take_snapshot(options, place, network)
        runs = [clone(snapshot, place, network) for _ in range(options.n)]
    stages = {name: summary([run[name] for run in runs]) for name in ("init", "command", "both")}
    if options.json:
        print(json.dumps({"kind": "flames translated blocks", "schema": 1, "runs": options.n, "stages": stages}, indent=2))
        return
    print(f"{options.template}, medians of {options.n} clones: blocks translated until the answer")
    print(f"{'STAGE':10}{'BLOCKS':>9}{'KERNEL':>9}{'PROGRAMS':>10}{'AGAIN':>8}{'INSTRUCTIONS':>14}")
    for name, row in stages.items():
        print(f"{name:10}{row['blocks']:>9}{row['kernel']:>9}{row['programs']:>10}{row['again']:>8}{row['instructions']:>14}")


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    assets = Path(os.environ.get("FLAMES_ASSETS", plain.REPOSITORY / "build" / "assets"))
    parser.add_argument("-n", type=int, default=3, help="how many clones")
    parser.add_argument("--template", default="mini")
    parser.add_argument("--memory", type=int, default=256, help="guest memory in MiB")
    parser.add_argument("--settle", type=float, default=0.5, help="seconds of rest before the snapshot")
    parser.add_argument("--assets", type=Path, default=assets)
    parser.add_argument("--printer", help="the example `command-line`, already built")
    parser.add_argument("--json", action="store_true")
    return argparse.Namespace(**vars(parser.parse_args()), after="command")


def rest_before_snapshots(seconds):
    """A snapshot is taken right after the first command; the guest still cleans up behind it then."""
    first_command = plain.first_command

    def then_rest(network):
        first_command(network)
        time.sleep(seconds)

    floor.plain.first_command = then_rest
    floor.first_command = first_command


def clone(snapshot, place, network):
    with contextlib.ExitStack() as undo:
        run_dir = Path(undo.enter_context(tempfile.TemporaryDirectory(dir=place)))
        disk, log = run_dir / "disk.ext4", run_dir / "translated.log"
        subprocess.run(["cp", "--sparse=always", snapshot.disk, disk], check=True)
        arguments = [*snapshot.arguments_of_clone(disk), "-d", "in_asm", "-D", str(log)]
        qemu, control = floor.start(arguments, run_dir, network, undo)
        floor.go_on(control, snapshot.state)
        plain.init(network)
        answered = log.stat().st_size
        floor.first_command(network)
        ended = log.stat().st_size
        blocks = list(read_blocks(log, ended))
    init = [block for block in blocks if block[0] < answered]
    return {"init": count(init), "command": count(blocks, since=len(init)), "both": count(blocks)}


def read_blocks(log, end):
    """(where in the log, address, instructions) of each block."""
    at, block = 0, None
    with log.open("rb") as lines:
        for line in lines:
            if at >= end:
                break
            if line.startswith(b"IN:"):
                if block:
                    yield tuple(block)
                block = [at, None, 0]
            elif line.startswith(b"0x") and block:
                block[1] = block[1] or int(line.split(b":", 1)[0], 16)
                block[2] += 1
            at += len(line)
    if block and block[1]:
        yield tuple(block)


def count(blocks, since=0):
    seen = {block[1] for block in blocks[:since]}
    again = 0
    for block in blocks[since:]:
        again += block[1] in seen
        seen.add(block[1])
    counted = blocks[since:]
    kernel = sum(block[1] >= KERNEL for block in counted)
    return {
        "blocks": len(counted),
        "kernel": kernel,
        "programs": len(counted) - kernel,
        "again": again,
        "instructions": sum(block[2] for block in counted),
    }


def summary(counts):
    return {key: round(statistics.median(one[key] for one in counts)) for key in counts[0]}


if __name__ == "__main__":
    if os.geteuid() != 0:
        sys.exit("run as root: the guests are on a TAP in a network namespace")
    main()
