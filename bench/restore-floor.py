#!/usr/bin/env python3
"""The floor of a restore: plain QEMU goes on from a snapshot, with nothing of Flames on the host.

Boots a guest in a network namespace with a TAP, as `bench/plain-qemu.py` does and with the driver's own arguments;
stops it, lets QEMU write the device state (`xen-save-devices-state`) and copies its memory, a memfd, from outside.
Each clone then maps that memory privately, loads the device state, and is asked over TCP. In turns, N times each:

    reply              QEMU is started, ..., first answer of the agent (GET /health)
    command            QEMU is started, ..., init handshake, first byte of a command's output
    reply, started     the same from a QEMU that was started beforehand
    command, started

A clone's disk is copied before the clock starts, since a node can have it ready. `--after` says what the guest had
done when it was snapshotted: nothing but reported (`ready`), or an init and a command too (`command`), which are then
in its page cache. Own memory is the unique set size of QEMU a second after the command.

Needs Python 3, root and QEMU. Everything it makes, it removes. `--json` for programs.
"""

import argparse
import array
import contextlib
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
spec = importlib.util.spec_from_file_location("plain_qemu", HERE / "plain-qemu.py")
plain = importlib.util.module_from_spec(spec)
spec.loader.exec_module(plain)

WAYS = [("reply", False), ("command", False), ("reply", True), ("command", True)]
SETTLE_SECONDS = 1.0


def main():
    options = parse_options()
    with contextlib.ExitStack() as undo:
        folder = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="floor-", dir=options.folder)))
        # One TAP for source and clones: the guest remembers its link address.
        network = plain.Tap(undo)
        results = [measure(options, template, folder, network) for template in options.template]
    if options.json:
        print(json.dumps({"kind": "flames restore floor", "schema": 1, "results": results}, indent=2))
    else:
        for result in results:
            print_table(result)


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    assets = Path(os.environ.get("FLAMES_ASSETS", plain.REPOSITORY / "build" / "assets"))
    parser.add_argument("-n", type=int, default=20, help="how many clones are measured in each way")
    parser.add_argument("--warm-up", type=int, default=1, help="clones before that, for the page cache")
    parser.add_argument("--template", action="append", help="may be repeated; mini and base without it")
    parser.add_argument("--after", choices=["ready", "command"], default="ready", help="when the snapshot is taken")
    parser.add_argument("--memory", type=int, default=256, help="guest memory in MiB")
    parser.add_argument("--assets", type=Path, default=assets)
    parser.add_argument("--folder", type=Path, help="where the snapshot is kept meanwhile")
    parser.add_argument("--printer", help="the example `command-line`, already built")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    options.template = options.template or ["mini", "base"]
    return options


def measure(options, template, folder, network):
    options = argparse.Namespace(**{**vars(options), "template": template})
    with tempfile.TemporaryDirectory(dir=folder) as place:
        snapshot = take_snapshot(options, Path(place), network)
        runs = {way: [] for way in WAYS}
        for _ in range(options.warm_up + options.n):
            for way in WAYS:
                runs[way].append(clone(snapshot, Path(place), network, *way))
    return report(options, snapshot, {way: measured[options.warm_up :] for way, measured in runs.items()})


class Snapshot:
    """The parts of a snapshot, and the arguments of a QEMU that goes on from it."""

    def __init__(self, folder, arguments, pause_ms):
        self.memory, self.state, self.disk = folder / "memory", folder / "state", folder / "disk.ext4"
        self.arguments, self.pause_ms = arguments, pause_ms

    def arguments_of_clone(self, disk):
        """A private view of the memory, no kernel, and a disk of its own."""
        arguments, skip = [], False
        for word in self.arguments:
            if skip or word in ("-kernel", "-append"):
                skip = not skip
                continue
            if word.startswith("memory-backend-memfd,"):
                size = re.search(r"size=[^,]+", word).group(0)
                word = f"memory-backend-file,id=m,{size},share=off,mem-path={self.memory}"
            arguments.append(word.replace(str(self.source_disk), str(disk)))
        return [*arguments, "-incoming", "defer"]


def take_snapshot(options, place, network):
    with contextlib.ExitStack() as undo:
        run_dir = Path(undo.enter_context(tempfile.TemporaryDirectory(dir=place)))
        disk = plain.writable_disk(run_dir)
        arguments = plain.command_line(options, run_dir, disk, network)
        if not any(word.startswith("memory-backend-memfd,") for word in arguments):
            sys.exit("the driver gives its guests no memory that can be copied: is this tree older than snapshots?")
        qemu, control = start(arguments, run_dir, network, undo)
        control.execute("cont")
        plain.boot_channel(run_dir / "boot.sock")
        if options.after == "command":
            plain.init(network)
            plain.first_command(network)
        folder = place / "snapshot"
        folder.mkdir()
        begin = time.monotonic()
        control.execute("stop")
        control.execute("xen-save-devices-state", {"filename": str(folder / "state"), "live": False})
        copy_memory(qemu.pid, folder / "memory")
        pause_ms = (time.monotonic() - begin) * 1000
        subprocess.run(["cp", "--sparse=always", disk, folder / "disk.ext4"], check=True)
        snapshot = Snapshot(folder, arguments, pause_ms)
        snapshot.source_disk = disk
        return snapshot


def start(arguments, run_dir, network, undo):
    listeners = [plain.listen(run_dir / name) for name in plain.SOCKETS]
    qemu = plain.start(arguments, listeners, network, run_dir)
    undo.callback(plain.end, qemu)
    return qemu, Control(run_dir / "qmp.sock")


class Control(plain.Qmp):
    """The control protocol with arguments and descriptors."""

    def execute(self, command, arguments=None, descriptor=None):
        line = json.dumps({"execute": command, "arguments": arguments or {}}).encode() + b"\n"
        if descriptor is None:
            self.socket.sendall(line)
        else:
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))
            self.socket.sendmsg([line], [rights])
        while "return" not in (answer := json.loads(self.lines.readline() or '{"error":"QEMU ended"}')):
            if "error" in answer:
                sys.exit(f"QEMU refuses {command}: {answer}")
        return answer["return"]


def copy_memory(pid, target):
    """The guest's memory, past QEMU and without its holes."""
    descriptors = Path(f"/proc/{pid}/fd")
    found = [entry for entry in descriptors.iterdir() if os.readlink(entry).startswith("/memfd:memory-backend")]
    with open(found[0], "rb") as source, target.open("wb") as copy:
        size = os.fstat(source.fileno()).st_size
        copy.truncate(size)
        at = 0
        while at < size:
            try:
                at = os.lseek(source.fileno(), at, os.SEEK_DATA)
            except OSError:
                return
            end = os.lseek(source.fileno(), at, os.SEEK_HOLE)
            copy.seek(at)
            while at < end:
                at += os.sendfile(copy.fileno(), source.fileno(), at, end - at)


def clone(snapshot, place, network, until, started_before):
    """One clone, from nothing or from a started QEMU, to an answer or a command's first output."""
    with contextlib.ExitStack() as undo:
        run_dir = Path(undo.enter_context(tempfile.TemporaryDirectory(dir=place)))
        disk = run_dir / "disk.ext4"
        subprocess.run(["cp", "--sparse=always", snapshot.disk, disk], check=True)
        arguments = snapshot.arguments_of_clone(disk)
        begin = time.monotonic()
        qemu, control = start(arguments, run_dir, network, undo)
        if started_before:
            control.execute("query-status")
            begin = time.monotonic()
        go_on(control, snapshot.state)
        loaded = time.monotonic()
        if until == "reply":
            reply(network)
        else:
            plain.init(network)
            plain.first_command(network)
        end = time.monotonic()
        measured = {"total": (end - begin) * 1000, "loaded": (loaded - begin) * 1000}
        if until == "command":
            time.sleep(SETTLE_SECONDS)
            measured["ussMib"] = unique_set_mib(qemu.pid)
        return measured


def go_on(control, state):
    descriptor = os.open(state, os.O_RDONLY)
    control.execute("getfd", {"fdname": "state"}, descriptor)
    os.close(descriptor)
    control.execute("migrate-incoming", {"uri": "fd:state"})
    while (status := control.execute("query-status")["status"]) == "inmigrate":
        pass
    if status not in ("paused", "prelaunch"):
        sys.exit(f"QEMU does not load the state: it is {status}")
    control.execute("cont")


def reply(network):
    connection = network.connect()
    connection.request("GET", "/health")
    response = connection.getresponse()
    response.read()
    if response.status >= 300:
        sys.exit(f"health: {response.status}")


def unique_set_mib(pid):
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(kib) for kib in re.findall(r"^Private_(?:Clean|Dirty):\s+(\d+) kB", rollup, re.M)) / 1024


def report(options, snapshot, runs):
    ways = {name_of(way): summary(measured) for way, measured in runs.items()}
    own = [run["ussMib"] for measured in runs.values() for run in measured if "ussMib" in run]
    return {
        "template": options.template,
        "after": options.after,
        "memoryMib": options.memory,
        "runs": options.n,
        "load": os.getloadavg()[0],
        "snapshotPauseMs": round(snapshot.pause_ms, 1),
        "idleUssMib": round(statistics.median(own), 1),
        "ms": ways,
    }


def name_of(way):
    until, started_before = way
    return f"{until}, started" if started_before else until


def summary(measured):
    totals = sorted(run["total"] for run in measured)
    nearest = lambda percent: totals[max(-(-len(totals) * percent // 100), 1) - 1]
    return {
        "min": round(totals[0], 1),
        "p50": round(nearest(50), 1),
        "p90": round(nearest(90), 1),
        "p99": round(nearest(99), 1),
        "max": round(totals[-1], 1),
        "loadedP50": round(statistics.median(run["loaded"] for run in measured), 1),
    }


def print_table(result):
    print(f"{result['template']}, snapshot after {result['after']}, {result['runs']} clones each way, "
          f"load {result['load']:.1f}; milliseconds")  # fmt: skip
    print(f"{'UNTIL':18}{'MIN':>8}{'P50':>8}{'P90':>8}{'P99':>8}{'MAX':>8}{'LOADED':>8}")
    for way, row in result["ms"].items():
        print(f"{way:18}" + "".join(f"{value:8.1f}" for value in row.values()))
    print(f"own memory of an idle clone {result['idleUssMib']} MiB; stop, state and memory of the snapshot "
          f"{result['snapshotPauseMs']} ms\n")  # fmt: skip


if __name__ == "__main__":
    if os.geteuid() != 0:
        sys.exit("run as root: the guests are on a TAP in a network namespace")
    if not shutil.which("qemu-system-x86_64"):
        sys.exit("qemu-system-x86_64 is not installed")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    main()
