#!/usr/bin/env python3
"""Files of a sandbox against the same files of nginx: one client, one body, in turns, on loopback.

usage: bench/e2b-files.py [--mib 100] [--rounds 3] [--daemon PID]
       with e2b installed, and E2B_API_URL, E2B_SANDBOX_URL and E2B_API_KEY set; needs nginx with its DAV module

Sends a file to the sandbox (`POST /files`) and to nginx (`PUT`), fetches it from both, and prints MB/s per round. With the
daemon's process id it also prints its memory before and the most during the transfers. Ends what it starts.
"""

import argparse
import contextlib
import http.client
import json
import os
import re
import socket
import subprocess
import tempfile
import time
import urllib.parse
from pathlib import Path

from e2b import Sandbox

PIECE = os.urandom(1 << 20)
AGENT_PORT = "49983"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--daemon", type=int)
    options = parser.parse_args()
    with contextlib.ExitStack() as undo:
        sandbox = Sandbox.create("base", timeout=600)
        undo.callback(sandbox.kill)
        servers = {"flames": Flames(sandbox), "nginx": Nginx(undo)}
        before = memory(options.daemon)
        most = before
        for _ in range(options.rounds):
            for name, server in servers.items():
                up = speed(options.mib, lambda: server.send(options.mib))
                down = speed(options.mib, lambda: server.fetch(options.mib))
                most = {key: max(most[key], value) for key, value in memory(options.daemon).items()}
                print(f"{name:8} up {up:8.1f} MB/s   down {down:8.1f} MB/s", flush=True)
        for key in before:
            print(f"daemon {key}: {before[key]:.1f} MiB before, {most[key]:.1f} MiB at most")


def speed(mib, call):
    start = time.perf_counter()
    call()
    return (mib << 20) / (time.perf_counter() - start) / 1e6


def memory(pid):
    if pid is None:
        return {}
    status = Path(f"/proc/{pid}/status").read_text()
    return {key: int(re.search(rf"{key}:\s+(\d+) kB", status).group(1)) / 1024 for key in ("VmRSS", "VmHWM")}


def exchange(address, method, path, headers, mib=None):
    """One request on a connection of its own; the answer's bytes are counted and thrown away."""
    connection = http.client.HTTPConnection(*address)
    body = (PIECE for _ in range(mib)) if mib else None
    length = {"Content-Length": str(mib << 20)} if mib else {}
    connection.request(method, path, body=body, headers={**headers, **length})
    answer = connection.getresponse()
    got = 0
    while piece := answer.read(1 << 20):
        got += len(piece)
    connection.close()
    if answer.status >= 300:
        raise SystemExit(f"{method} {path}: {answer.status}")
    return got


def fetched(mib, got):
    if got != mib << 20:
        raise SystemExit(f"{got} bytes came back of {mib} MiB")


class Flames:
    def __init__(self, sandbox):
        url = urllib.parse.urlsplit(os.environ["E2B_SANDBOX_URL"])
        self.address = (url.hostname, url.port)
        token = json.loads(json.dumps(sandbox.connection_config.sandbox_headers)).get("X-Access-Token")
        self.headers = {
            "E2b-Sandbox-Id": sandbox.sandbox_id,
            "E2b-Sandbox-Port": AGENT_PORT,
            "X-Access-Token": token or sandbox._envd_access_token,
            "Accept-Encoding": "identity",
        }
        self.path = "/files?" + urllib.parse.urlencode({"path": "/home/user/big", "username": "user"})

    def send(self, mib):
        exchange(self.address, "POST", self.path, {**self.headers, "Content-Type": "application/octet-stream"}, mib)

    def fetch(self, mib):
        fetched(mib, exchange(self.address, "GET", self.path, self.headers))


class Nginx:
    def __init__(self, undo):
        place = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="nginx-")))
        (place / "files").mkdir(mode=0o777)
        os.chmod(place, 0o755)
        os.chmod(place / "files", 0o777)
        port = free_port()
        paths = "".join(f"{kind}_temp_path {place}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        config = place / "nginx.conf"
        config.write_text(
            f"worker_processes 1; pid {place}/pid; error_log {place}/error.log crit; events {{ worker_connections 64; }}"
            f"http {{ access_log off; {paths} client_max_body_size 0; server {{ listen 127.0.0.1:{port};"
            f" location / {{ root {place}/files; dav_methods PUT; }} }} }}"
        )
        server = subprocess.Popen(["/usr/sbin/nginx", "-e", f"{place}/error.log", "-c", str(config), "-g", "daemon off;"])
        undo.callback(server.wait)
        undo.callback(server.terminate)
        self.address = ("127.0.0.1", port)
        wait_until_open(self.address)

    def send(self, mib):
        exchange(self.address, "PUT", "/big", {}, mib)

    def fetch(self, mib):
        fetched(mib, exchange(self.address, "GET", "/big", {}))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until_open(address):
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(address).close()
            return
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


if __name__ == "__main__":
    main()
