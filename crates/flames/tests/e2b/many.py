"""Clients in number: idle streams and what they cost, connections without end, and who else notices."""

import json
import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor

from e2b import Sandbox

from cases import case, eventually, main

ADDRESS = os.environ["E2B_API_URL"].removeprefix("http://").rsplit(":", 1)
DAEMON = os.environ["FLAMES_PID"]
STREAMS = 500
MOST_MB = 50


def connect(source="127.0.0.1"):
    return socket.create_connection((ADDRESS[0], int(ADDRESS[1])), timeout=60, source_address=(source, 0))


def resident_mb():
    with open(f"/proc/{DAEMON}/status") as status:
        line = next(line for line in status if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def stream(sandbox, pid):
    """The stream of a process, once its first event has come."""
    body = json.dumps({"process": {"pid": pid}}).encode()
    body = b"\0" + len(body).to_bytes(4, "big") + body
    head = (
        "POST /process.Process/Connect HTTP/1.1\r\nHost: x\r\nConnect-Protocol-Version: 1\r\n"
        "Content-Type: application/connect+json\r\n"
        f"E2b-Sandbox-Id: {sandbox.sandbox_id}\r\nE2b-Sandbox-Port: 49983\r\n"
        f"X-Access-Token: {sandbox.connection_config.sandbox_headers['X-Access-Token']}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    stream = connect()
    stream.sendall(head.encode() + body)
    got = b""
    while b'"start"' not in got:
        part = stream.recv(4096)
        assert part, got
        got += part
    return stream


@case
def five_hundred_idle_streams_cost_little():
    sandbox = Sandbox.create("base", timeout=300)
    command = sandbox.commands.run("sleep 280", background=True)
    # What the first ones cost is not the price of a stream.
    warm = [stream(sandbox, command.pid) for _ in range(20)]
    before = resident_mb()
    with ThreadPoolExecutor(10) as pool:
        streams = list(pool.map(lambda _: stream(sandbox, command.pid), range(STREAMS)))
    cost = resident_mb() - before
    print(f"{STREAMS} idle streams cost the daemon {cost:.1f} MB, which had {before:.1f} MB", flush=True)
    assert cost < MOST_MB, cost
    assert sandbox.commands.run("echo still served").stdout == "still served\n"
    for one in warm + streams:
        one.close()
    sandbox.kill()


@case
def connections_without_end_from_one_client_concern_nobody_else():
    sandbox = Sandbox.create("base", timeout=300)
    flood = []
    for _ in range(1500):
        one = connect("127.0.0.9")
        one.setblocking(False)
        flood.append(one)

    def closed():
        count = 0
        for one in flood:
            try:
                count += one.recv(1) == b""
            except BlockingIOError:
                pass
            except ConnectionResetError:
                count += 1
        return count

    # Those beyond the bound are closed at once; the others, who say nothing, a while later.
    eventually(lambda: closed() >= 400, 5)
    assert sandbox.commands.run("echo not disturbed").stdout == "not disturbed\n"
    eventually(lambda: closed() == len(flood), 30)
    sandbox.kill()


@case
def a_client_that_never_reads_slows_nobody_down():
    sandbox = Sandbox.create("base", timeout=300)
    command = sandbox.commands.run("yes | head -c 200000000", background=True)
    deaf = [stream(sandbox, command.pid) for _ in range(5)]
    before = resident_mb()
    start = time.monotonic()
    for _ in range(5):
        assert sandbox.commands.run("echo fast").stdout == "fast\n"
    print(f"5 commands beside 5 deaf clients: {time.monotonic() - start:.2f} s", flush=True)
    assert resident_mb() - before < 20
    for one in deaf:
        one.close()
    sandbox.kill()


if __name__ == "__main__":
    main()
