#!/usr/bin/env python3
"""The floor of a restore on Firecracker: the same jailer, namespaces and requests by hand, next to the driver.

    FLAMES_FC_TESTBED=... bench/firecracker-raw.py [-n N] [--clones M] [--profile dev|bench]

Takes turns: one restore by hand, one through the driver (`cargo bench -p flames-vmm-firecracker --bench restore`),
N times; then M clones of each at once; then memory from the snapshot's file against memory from the page-fault handler,
whose first guest of all is measured apart (nothing is known of what it touches). Prints, as JSON, milliseconds from before the jailer is spawned until the
load with resume is answered (for the memory also until the guest answers), the page faults of Firecracker, and the memory that a clone has for itself (Private_* of smaps_rollup). Both sides get
new pid, mount, network, IPC and UTS namespaces and the same control groups. By hand the files are hard links where
the driver mounts, and the socket is looked for every 0.2 ms where the driver waits for an event.

Needs root, Python 3, `firecracker` and `jailer`. Everything it makes, it removes.
"""

import argparse
import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import socket
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
NEW_NAMESPACES = 0x00020000 | 0x40000000 | 0x08000000 | 0x04000000  # mnt net ipc uts; pid is the jailer's
LIBC = ctypes.CDLL(None, use_errno=True)
V1 = Path("/sys/fs/cgroup/memory").exists()
LIMITS = (
    ["memory.limit_in_bytes=134217728", "cpu.cfs_quota_us=150000", "pids.max=17"]
    if V1
    else ["memory.max=134217728", "cpu.max=150000 100000", "pids.max=17"]
)


class Driver:
    """The bench of the driver, told what to do line by line."""

    def __init__(self, profile):
        build = ["cargo", "build", "-q", "-p", "flames-vmm-firecracker", "--example", "page-faults", "--profile", profile]
        subprocess.run(build, cwd=REPOSITORY, check=True)
        command = ["cargo", "bench", "-q", "-p", "flames-vmm-firecracker", "--bench", "restore"]
        if profile != "bench":
            command += ["--profile", profile]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, cwd=REPOSITORY, stdin=pipe, stdout=pipe, text=True)
        self.facts = json.loads(self.process.stdout.readline())

    def say(self, word):
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class ByHand:
    def __init__(self, facts, folder):
        self.facts, self.folder, self.made, self.alive = facts, Path(folder), 0, []

    def restore(self):
        self.made += 1
        name, run_dir = f"hand-{self.made}", self.folder / f"r{self.made}"
        started = time.perf_counter()
        cage = run_dir / "firecracker" / name / "root"
        cage.mkdir(parents=True)
        for file, source in (("memory", "memory"), ("state", "deviceState"), ("disk-0", "disk")):
            os.link(self.facts[source], cage / file)
        uid = str(self.facts["uid"])
        command = [shutil.which("jailer"), "--id", name, "--exec-file", shutil.which("firecracker"), "--uid", uid, "--gid", uid]
        command += ["--chroot-base-dir", str(run_dir), "--resource-limit", "no-file=2048"]
        command += ["--cgroup-version", "1" if V1 else "2", "--parent-cgroup", "flames-tests"]
        for limit in LIMITS:
            command += ["--cgroup", limit]
        command += ["--new-pid-ns", "--", "--api-sock", "api.sock"]
        null = subprocess.DEVNULL
        process = subprocess.Popen(
            command, env={}, stdin=null, stdout=null, stderr=null, preexec_fn=lambda: LIBC.unshare(NEW_NAMESPACES)
        )
        api = connect(cage / "api.sock")
        load = {"snapshot_path": "state", "resume_vm": True}
        load["mem_backend"] = {"backend_type": "File", "backend_path": "memory"}
        put(api, "/snapshot/load", load)
        took = (time.perf_counter() - started) * 1000
        process.wait()  # the jailer: Firecracker is its child
        pid = int((cage / "firecracker.pid").read_text())
        self.alive.append((pid, os.pidfd_open(pid), run_dir, name))
        return {"ms": took, "pid": pid}

    def stop(self):
        for pid, pidfd, run_dir, name in self.alive:
            os.kill(pid, signal.SIGKILL)
            select.select([pidfd], [], [])
            os.close(pidfd)
            shutil.rmtree(run_dir)
            for controller in ("memory", "cpu", "pids", ""):
                group = Path("/sys/fs/cgroup") / controller / "flames-tests" / name
                while group.exists():
                    with contextlib.suppress(OSError):  # until its last process is reaped
                        group.rmdir()
        self.alive = []


def connect(path):
    while True:
        api = socket.socket(socket.AF_UNIX)
        try:
            api.connect(str(path))
            return api
        except (FileNotFoundError, ConnectionRefusedError):
            api.close()
            time.sleep(0.0002)


def put(api, path, value):
    body = json.dumps(value)
    head = f"PUT {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    api.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
    answer = api.recv(65536).decode()
    assert answer.startswith("HTTP/1.1 204"), answer


def page_faults(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[7]) + int(fields[9])


def compare_memory(driver, turns):
    """In turn: from the file, by faults with nothing known, by faults with a working set.

    Memory is what no file backs: a page of the file that one clone alone maps is nobody's own.
    """
    record = Path(driver.facts["memory"] + ".working-set")
    record.unlink(missing_ok=True)
    driver.say("answer userfaultfd")
    while not record.exists():
        time.sleep(0.05)
    driver.say("stop")
    known, found = record.read_bytes(), {}
    found["workingSetPages"] = sum(count for _, count in json.loads(known)["runs"])
    for what in ("restore", "answer"):
        rows = {"file": [], "userfaultfdFirst": [], "userfaultfd": []}
        for turn in range(turns + 1):
            for name, row in rows.items():
                record.unlink(missing_ok=True)
                if name == "userfaultfd":
                    record.write_bytes(known)
                said = driver.say(what if name == "file" else f"{what} userfaultfd")
                seen = (said["ms"], page_faults(said["pid"]), own_memory_kib(said["pid"], "Private_Dirty"))
                driver.say("stop")
                if turn:
                    row.append(seen)
        found[what] = {
            name: {key: summary(values) for key, values in zip(("ms", "faults", "dirtyKiB"), zip(*row))}
            for name, row in rows.items()
        }
    return found


def own_memory_kib(pid, kind="Private_"):
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(kind))


def summary(values):
    ordered = sorted(values)
    return {
        "median": round(statistics.median(ordered), 1),
        "least": round(ordered[0], 1),
        "p90": round(ordered[int(len(ordered) * 0.9) - 1], 1),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("-n", type=int, default=30)
    parser.add_argument("--clones", type=int, default=20)
    parser.add_argument("--profile", default="bench")
    options = parser.parse_args()
    driver = Driver(options.profile)
    # On the snapshot's own file system: hard links.
    folder = tempfile.mkdtemp(prefix="raw-", dir=Path(driver.facts["memory"]).parent.parent)
    hand = ByHand(driver.facts, folder)
    for source in ("memory", "deviceState"):
        os.chmod(driver.facts[source], 0o644)
    times = {"byHand": [], "driver": [], "driverPrepared": []}
    try:
        for turn in range(options.n + 2):
            by_hand = hand.restore()["ms"]
            hand.stop()
            through = driver.say("restore")
            driver.say("stop")
            if turn >= 2:  # the first two warm up
                times["byHand"].append(by_hand)
                times["driver"].append(through["ms"])
                times["driverPrepared"].append(through["preparedMs"])
        clones = {}
        for name, restore, stop in (
            ("byHand", hand.restore, hand.stop),
            ("driver", lambda: driver.say("restore"), lambda: driver.say("stop")),
        ):
            pids = [restore()["pid"] for _ in range(options.clones)]
            time.sleep(1)
            alive = [pid for pid in pids if Path(f"/proc/{pid}/exe").exists()]
            clones[name] = {"alive": len(alive), "ownKiB": summary([own_memory_kib(pid) for pid in alive])}
            stop()
        memory = compare_memory(driver, options.n)
    finally:
        hand.stop()
        driver.close()
        shutil.rmtree(folder)
    result = {name: summary(values) for name, values in times.items()}
    ratio = round(result["driver"]["median"] / result["byHand"]["median"], 2)
    load = os.getloadavg()[0]
    print(json.dumps({"version": driver.facts["version"], "ms": result, "ratio": ratio, "clones": clones, "memory": memory, "load": load}, indent=1))


if __name__ == "__main__":
    main()
