#!/usr/bin/env python3
"""The floor of `flames bench boot`: plain QEMU with the same kernel, images, devices and command line, and
nothing of Flames around it.

QEMU's arguments come from the driver itself (`cargo run -p flames-vmm-qemu --example command-line`), so the two
can never drift apart. As root the guest is on a TAP in a network namespace of its own, else on QEMU's user
network; with `-n N` it prints, as JSON, the milliseconds of each stage of N runs and their medians:

    spawn     the process is started, its control socket greets
    kernel    from `cont` to the agent's ready line
    init      the agent's init call over TCP
    command   a first command, to its first byte of output
    total     all of it

Needs Python 3 and nothing else. Everything it makes, it removes.
"""

import argparse
import base64
import contextlib
import fcntl
import http.client
import json
import os
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
GUEST, GATEWAY, PORT = "172.16.0.2", "172.16.0.1", 49983
SOCKETS = ["qmp.sock", "boot.sock", "console.sock"]
FIRST_DESCRIPTOR = 3
GUEST_MAC = "06:00:ac:10:00:02"
TOKEN = "0" * 64
STAGES = ["spawn", "kernel", "init", "command", "total"]


def main():
    options = parse_options()
    with contextlib.ExitStack() as undo:
        folder = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="plain-qemu-")))
        network = Tap(undo) if os.geteuid() == 0 and not options.user_network else UserNetwork()
        runs = [boot_once(options, folder, network) for _ in range(options.warm_up + options.n)]
    print(json.dumps(report(runs[options.warm_up :], network, options), indent=2))


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    assets = Path(os.environ.get("FLAMES_ASSETS", REPOSITORY / "build" / "assets"))
    parser.add_argument("-n", type=int, default=20, help="how many runs are measured")
    parser.add_argument("--warm-up", type=int, default=1, help="runs before that, for the page cache")
    parser.add_argument("--template", default="mini")
    parser.add_argument("--memory", type=int, default=256, help="guest memory in MiB")
    parser.add_argument("--assets", type=Path, default=assets)
    parser.add_argument("--user-network", action="store_true", help="do not use a TAP, not even as root")
    parser.add_argument("--printer", help="the example `command-line`, already built")
    return parser.parse_args()


def boot_once(options, folder, network):
    """One VM from nothing to the first byte of a command's output, and away again."""
    with contextlib.ExitStack() as undo:
        run_dir = Path(undo.enter_context(tempfile.TemporaryDirectory(dir=folder)))
        disk = writable_disk(run_dir)
        arguments = command_line(options, run_dir, disk, network)
        listeners = [listen(run_dir / name) for name in SOCKETS]
        clock = Stages()
        qemu = start(arguments, listeners, network, run_dir)
        undo.callback(end, qemu)
        control = Qmp(run_dir / "qmp.sock")
        clock.passed("spawn")
        control.execute("cont")
        boot_channel(run_dir / "boot.sock")
        clock.passed("kernel")
        init(network)
        clock.passed("init")
        first_command(network)
        clock.passed("command")
        return clock.stages


def writable_disk(run_dir):
    """A sparse ext4 as the node makes one; made before the clock starts, since the node has a template of it."""
    disk = run_dir / "disk.ext4"
    with disk.open("wb") as file:
        file.truncate(1 << 30)
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-E", "lazy_itable_init=1,lazy_journal_init=1", disk], check=True)
    return disk


def command_line(options, run_dir, disk, network):
    """The driver's own arguments, one per line."""
    printer = [options.printer] if options.printer else [
        "cargo", "run", "--quiet", "--manifest-path", REPOSITORY / "Cargo.toml",
        "-p", "flames-vmm-qemu", "--example", "command-line", "--",
    ]  # fmt: skip
    assets = options.assets
    spec = [
        run_dir, str(options.memory), assets / "vmlinux", network.option,
        f"ro:{assets / 'agent.erofs'}", f"ro:{assets / 'images' / (options.template + '.erofs')}", f"rw:{disk}",
    ]  # fmt: skip
    printed = subprocess.run([*printer, *spec], check=True, capture_output=True, text=True)
    return printed.stdout.splitlines()


def start(arguments, listeners, network, run_dir):
    """Starts QEMU with the sockets at the descriptors the driver gives them."""
    # Away from the target numbers first, so that no socket is overwritten before it was moved.
    away = [fcntl.fcntl(listener, fcntl.F_DUPFD, 60) for listener in listeners]
    moves = [f"exec {target}<&{source} {source}<&-" for target, source in enumerate(away, FIRST_DESCRIPTOR)]
    with (run_dir / "vmm.log").open("wb") as log:
        qemu = subprocess.Popen(
            ["/bin/bash", "-c", "; ".join([*moves, 'exec "$@"']), "qemu", *network.enter, *arguments],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=away, cwd=run_dir,
        )  # fmt: skip
    for descriptor in [*away, *(listener.detach() for listener in listeners)]:
        os.close(descriptor)
    return qemu


def listen(path):
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()
    return server


def end(qemu):
    qemu.kill()
    qemu.wait()


class Stages:
    """A stop watch that keeps its laps."""

    def __init__(self):
        self.begin = self.last = time.monotonic()
        self.stages = {}

    def passed(self, stage):
        now = time.monotonic()
        self.stages[stage] = (now - self.last) * 1000
        self.stages["total"] = (now - self.begin) * 1000
        self.last = now


class Qmp:
    """QEMU's control protocol, as much as a `cont` needs."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(path))
        self.lines = self.socket.makefile("r")
        if not self.lines.readline():
            sys.exit(f"QEMU does not start: {(path.parent / 'vmm.log').read_text()}")
        self.execute("qmp_capabilities")

    def execute(self, command):
        self.socket.sendall(json.dumps({"execute": command}).encode() + b"\n")
        while "return" not in (answer := json.loads(self.lines.readline())):
            if "error" in answer:
                sys.exit(f"QEMU refuses {command}: {answer}")


def boot_channel(path):
    """Greets the agent and waits for its line."""
    with socket.socket(socket.AF_UNIX) as channel:
        channel.connect(str(path))
        channel.sendall(json.dumps({"controlToken": TOKEN}).encode() + b"\n")
        answer = json.loads(channel.makefile("r").readline() or '{"error":"QEMU ended"}')
        if not answer.get("ready"):
            sys.exit(f"the agent does not start: {answer}")


def init(network):
    body = {
        "timeUnixNanos": str(time.time_ns()),
        "entropy": base64.b64encode(os.urandom(64)).decode(),
        "accessToken": TOKEN,
        "hostname": "plain",
    }
    connection = network.connect()
    headers = {"Content-Type": "application/json", "X-Flames-Control": TOKEN}
    connection.request("POST", "/flames/v1/init", json.dumps(body), headers)
    response = connection.getresponse()
    if response.status != 200:
        sys.exit(f"init: {response.status} {response.read()}")
    response.read()


def first_command(network):
    """Runs `echo` and returns at its first byte of output."""
    payload = json.dumps({"process": {"cmd": "/bin/echo", "args": ["hello"]}, "stdin": False}).encode()
    headers = {"Content-Type": "application/connect+json", "Connect-Protocol-Version": "1", "X-Access-Token": TOKEN}
    connection = network.connect()
    connection.request("POST", "/process.Process/Start", struct.pack(">BI", 0, len(payload)) + payload, headers)
    response = connection.getresponse()
    while frame := read_frame(response):
        if "stdout" in json.dumps(frame):
            return
    sys.exit("the command printed nothing")


def read_frame(response):
    header = response.read(5)
    if len(header) < 5:
        return None
    flags, length = struct.unpack(">BI", header)
    frame = json.loads(response.read(length))
    if flags & 2:
        sys.exit(f"the stream ended: {frame}")
    return frame


class UserNetwork:
    """QEMU's own network, with the agent's port forwarded from loopback."""

    enter = []

    def __init__(self):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.option = f"user:{self.port}"

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)


class Tap:
    """A namespace with a TAP in it, made once: the node takes one from its pool, too."""

    def __init__(self, undo):
        self.name = f"plain-{os.getpid()}"
        ip("netns", "add", self.name)
        undo.callback(ip, "netns", "del", self.name)
        ip("-n", self.name, "link", "set", "lo", "up")
        ip("-n", self.name, "tuntap", "add", "tap0", "mode", "tap")
        ip("-n", self.name, "addr", "add", f"{GATEWAY}/24", "dev", "tap0")
        ip("-n", self.name, "link", "set", "tap0", "up")
        ip("-n", self.name, "neigh", "add", GUEST, "lladdr", GUEST_MAC, "dev", "tap0", "nud", "permanent")
        self.option = f"tap:/run/netns/{self.name}:tap0"
        self.enter = ["nsenter", f"--net=/run/netns/{self.name}"]

    def connect(self):
        """A socket belongs to the namespace of the thread that made it: make it in one that entered."""
        made = []
        thread = threading.Thread(target=lambda: made.append(self.connected()))
        thread.start()
        thread.join()
        if not made:
            sys.exit("cannot connect to the agent")
        connection = http.client.HTTPConnection(GUEST, PORT, timeout=20)
        connection.sock = made[0]
        return connection

    def connected(self):
        enter_network(f"/run/netns/{self.name}")
        return socket.create_connection((GUEST, PORT), timeout=20)


def enter_network(path):
    """setns for this thread; Python has it from 3.12 on."""
    with open(path) as namespace:
        if hasattr(os, "setns"):
            os.setns(namespace.fileno(), 0x40000000)
            return
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(namespace.fileno(), 0x40000000) != 0:
            sys.exit(f"setns: {os.strerror(ctypes.get_errno())}")


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True)


def report(runs, network, options):
    milliseconds = {stage: [round(run[stage], 1) for run in runs] for stage in STAGES}
    return {
        "template": options.template,
        "network": type(network).__name__,
        "runs": len(runs),
        "load": os.getloadavg()[0],
        "medianMs": {stage: round(statistics.median(values), 1) for stage, values in milliseconds.items()},
        "maxMs": {stage: max(values) for stage, values in milliseconds.items()},
        "ms": milliseconds,
    }


if __name__ == "__main__":
    if not shutil.which("qemu-system-x86_64"):
        sys.exit("qemu-system-x86_64 is not installed")
    main()
