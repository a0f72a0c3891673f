"""Processes, files, terminals and ports in one sandbox, through the unmodified Python client, sync."""

import hashlib
import io
import json
import os
import socket
import threading
import time
import urllib.error
import urllib.request

from e2b import (
    CommandExitException,
    FileType,
    NotFoundException,
    Sandbox,
    SandboxException,
    TimeoutException,
)
from e2b.sandbox.commands.command_handle import PtySize

from cases import case, eventually, main, raises

sandbox = Sandbox.create("base", timeout=900)
URL = os.environ["E2B_SANDBOX_URL"]


def ask(port, path, headers=(), data=None, id=None, url=URL):
    """Status and body of a request through the proxy by headers."""
    named = {"E2b-Sandbox-Id": id or sandbox.sandbox_id, "E2b-Sandbox-Port": str(port)}
    request = urllib.request.Request(url + path, data=data, headers={**named, **dict(headers)})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


@case
def commands_say_what_they_wrote_and_how_they_ended():
    result = sandbox.commands.run("echo out; echo err >&2")
    assert (result.stdout, result.stderr, result.exit_code) == ("out\n", "err\n", 0)
    error = raises(CommandExitException, lambda: sandbox.commands.run("echo bad >&2; exit 3"))
    assert (error.exit_code, error.stderr) == (3, "bad\n")
    assert sandbox.commands.run("pwd; whoami").stdout == "/home/user\nuser\n"
    assert sandbox.commands.run("pwd; whoami", cwd="/tmp", user="root").stdout == "/tmp\nroot\n"
    assert sandbox.commands.run("echo $A", envs={"A": "ü 1"}).stdout == "ü 1\n"
    raises(Exception, lambda: sandbox.commands.run("true", user="nosuchuser"), "nosuchuser")
    raises(Exception, lambda: sandbox.commands.run("true", cwd="/no/such"), "/no/such")


@case
def output_streams_and_ten_thousand_lines_arrive():
    pieces = []
    result = sandbox.commands.run("for n in 1 2 3; do echo $n; sleep 0.3; done", on_stdout=pieces.append)
    assert result.stdout == "1\n2\n3\n" and len(pieces) == 3, pieces
    lines = sandbox.commands.run("seq 10000", timeout=120).stdout.splitlines()
    assert lines == [str(n) for n in range(1, 10001)]


@case
def background_commands_are_listed_fed_joined_and_killed():
    handle = sandbox.commands.run("cat", background=True, stdin=True)
    assert handle.pid in [one.pid for one in sandbox.commands.list()]
    sandbox.commands.send_stdin(handle.pid, "hello\n")
    joined = sandbox.commands.connect(handle.pid)
    sandbox.commands.send_stdin(handle.pid, "again\n")
    for out, _, _ in joined:
        if out and "again" in out:
            break
    assert sandbox.commands.kill(handle.pid) is True
    assert sandbox.commands.kill(handle.pid) is False
    raises(CommandExitException, handle.wait)
    raises(NotFoundException, lambda: sandbox.commands.connect(99999))


@case
def a_command_past_its_timeout_ends():
    start = time.monotonic()
    raises(TimeoutException, lambda: sandbox.commands.run("sleep 73", timeout=2))
    assert time.monotonic() - start < 6
    eventually(lambda: "sleep 73" not in sandbox.commands.run("ps -eo args").stdout, 5)


@case
def a_client_that_goes_away_leaves_its_command_running():
    handle = sandbox.commands.run("sleep 1; echo done > /tmp/left; sleep 60", background=True)
    handle.disconnect()
    eventually(lambda: sandbox.files.exists("/tmp/left"), 10)
    assert handle.pid in [one.pid for one in sandbox.commands.list()]
    sandbox.commands.kill(handle.pid)


@case
def files_are_written_read_listed_moved_and_removed():
    files = sandbox.files
    info = files.write("/home/user/dir/a.txt", "text ü")
    assert (info.name, info.path) == ("a.txt", "/home/user/dir/a.txt")
    assert files.read("dir/a.txt") == "text ü"
    assert bytes(files.read("/home/user/dir/a.txt", format="bytes")) == "text ü".encode()
    assert b"".join(files.read("dir/a.txt", format="stream")) == "text ü".encode()
    files.write_files([{"path": "dir/b", "data": b"\0\1"}, {"path": "dir/c", "data": "c"}])
    assert sorted(one.name for one in files.list("dir")) == ["a.txt", "b", "c"]
    assert files.make_dir("dir/sub") is True and files.make_dir("dir/sub") is False
    assert [one.type for one in files.list("dir") if one.name == "sub"] == [FileType.DIR]
    assert files.rename("dir/b", "dir/d").path == "/home/user/dir/d"
    assert files.exists("dir/d") and not files.exists("dir/b")
    assert files.get_info("dir/a.txt").size == len("text ü".encode())
    files.remove("dir")
    raises(NotFoundException, lambda: files.read("dir/a.txt"))
    raises(Exception, lambda: files.list("/no/such"))
    assert files.write("/root/x", "1", user="root").path == "/root/x"


@case
def two_hundred_megabytes_go_up_and_down():
    size, piece = 200 << 20, os.urandom(1 << 20)

    class Source(io.RawIOBase):
        left = size

        def readable(self):
            return True

        def readinto(self, buffer):
            count = min(len(buffer), self.left, len(piece))
            buffer[:count] = piece[:count]
            Source.left -= count
            return count

    start = time.monotonic()
    sandbox.files.write("/home/user/big", io.BufferedReader(Source()), request_timeout=240)
    up = time.monotonic() - start
    assert sandbox.files.get_info("/home/user/big").size == size
    got = 0
    start = time.monotonic()
    for part in sandbox.files.read("/home/user/big", format="stream", request_timeout=240):
        got += len(part)
    assert got == size
    print(f"   up {size / up / 1e6:.0f} MB/s, down {size / (time.monotonic() - start) / 1e6:.0f} MB/s")
    sandbox.files.remove("/home/user/big")


@case
def a_signed_url_is_all_that_a_download_needs():
    sandbox.files.write("/home/user/s.txt", "signed")
    assert urllib.request.urlopen(sandbox.download_url("s.txt")).read() == b"signed"
    late = sandbox.download_url("s.txt", use_signature_expiration=60)
    assert urllib.request.urlopen(late).read() == b"signed"
    for forged in [late.replace("s.txt", "t.txt"), late.replace("signature=v1_", "signature=v1_A")]:
        error = raises(urllib.error.HTTPError, lambda: urllib.request.urlopen(forged))
        assert error.code == 401, error


@case
def a_watch_sees_a_thousand_files():
    sandbox.files.make_dir("/home/user/watched")
    watch = sandbox.files.watch_dir("/home/user/watched", recursive=True)
    sandbox.commands.run("cd watched && for n in $(seq 1000); do echo > f$n; done", timeout=120)
    seen = set()

    def all_seen():
        seen.update(event.name for event in watch.get_new_events())
        return len(seen) >= 1000

    eventually(all_seen, 30)
    assert seen == {f"f{n}" for n in range(1, 1001)}
    watch.stop()


@case
def a_terminal_takes_keys_and_sizes():
    terminal = sandbox.pty.create(size=PtySize(rows=24, cols=80), timeout=60)
    shown = []
    reader = threading.Thread(target=lambda: shown.extend(data for _, _, data in terminal if data))
    reader.daemon = True
    reader.start()
    has = lambda text: text in b"".join(shown)
    sandbox.pty.send_stdin(terminal.pid, b"echo $((6*7)); stty size\n")
    eventually(lambda: has(b"42") and has(b"24 80"))
    sandbox.pty.resize(terminal.pid, PtySize(rows=50, cols=132))
    sandbox.pty.send_stdin(terminal.pid, b"stty size\n")
    eventually(lambda: has(b"50 132"))
    sandbox.pty.send_stdin(terminal.pid, b"more /etc/passwd\n")
    eventually(lambda: has(b"root:x:0") and has(b"(END)"))
    sandbox.pty.send_stdin(terminal.pid, b"q")
    eventually(lambda: b"".join(shown).rstrip().endswith(b"$"))
    sandbox.pty.send_stdin(terminal.pid, b"exit\n")
    reader.join(10)
    assert not reader.is_alive()


@case
def input_flows_and_a_terminal_is_taken_up_again():
    lines = [f"{n}\n" for n in range(1000)]
    counted = sandbox.commands.run("cat", background=True, stdin=True)
    sandbox.commands.stream_input(counted.pid, iter(lines))
    sandbox.commands.close_stdin(counted.pid)
    assert counted.wait().stdout == "".join(lines)
    terminal = sandbox.pty.create(size=PtySize(rows=24, cols=80), timeout=60)
    terminal.disconnect()
    again = sandbox.pty.connect(terminal.pid)
    shown = []
    reader = threading.Thread(target=lambda: shown.extend(data for _, _, data in again if data))
    reader.daemon = True
    reader.start()
    sandbox.pty.stream_input(terminal.pid, [b"echo $((6*7))\n", b"exit\n"])
    reader.join(30)
    assert not reader.is_alive() and b"42" in b"".join(shown), shown


@case
def servers_in_the_sandbox_are_reached_by_headers_and_by_host():
    sandbox.files.write("/home/user/www/hello.txt", "from inside")
    for port, address in [(8000, "0.0.0.0"), (8001, "127.0.0.1")]:
        server = f"python3 -m http.server {port} --bind {address} --directory /home/user/www"
        sandbox.commands.run(server, background=True)
        eventually(lambda: ask(port, "/hello.txt") == (200, b"from inside"), 20)
        host = sandbox.get_host(port)
        assert host.startswith(f"{port}-{sandbox.sandbox_id}.")
        request = urllib.request.Request(URL + "/hello.txt", headers={"Host": host})
        assert urllib.request.urlopen(request, timeout=20).read() == b"from inside"
    status, body = ask(8000, "/../../etc/passwd")
    assert status == 404 and b"root:" not in body


SERVER = """
import http.server, time
class Server(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.headers["Upgrade"]:
            self.send_response_only(101)
            self.send_header("Connection", "Upgrade")
            self.send_header("Upgrade", self.headers["Upgrade"])
            self.end_headers()
            self.wfile.write(b"hello ")
            while piece := self.connection.recv(100):
                self.wfile.write(piece)
        elif self.path == "/events":
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            for n in range(3):
                self.wfile.write(b"data: %d\\n\\n" % n)
                time.sleep(0.5)
        else:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(str(dict(self.headers.items())).encode())
http.server.ThreadingHTTPServer(("", 8100), Server).serve_forever()
"""


def serve(inside):
    inside.files.write("server.py", SERVER)
    inside.commands.run("python3 server.py", background=True)
    inside.commands.run("until ss -ltn | grep -q :8100; do sleep 0.1; done", timeout=30)


@case
def a_websocket_and_server_sent_events_flow():
    serve(sandbox)
    address = URL.split("//")[1].rsplit(":", 1)
    with socket.create_connection((address[0], int(address[1])), timeout=20) as raw:
        host = sandbox.get_host(8100)
        raw.sendall(f"GET /ws HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n".encode())
        got = b""
        while not got.endswith(b"hello "):
            got += raw.recv(1)
        assert got.startswith(b"HTTP/1.1 101") and b"websocket" in got, got
        for word in [b"one", b"two"]:
            raw.sendall(word)
            assert raw.recv(100) == word
    request = urllib.request.Request(URL + "/events", headers={"Host": sandbox.get_host(8100)})
    times = []
    with urllib.request.urlopen(request, timeout=20) as answer:
        for line in answer:
            if line.startswith(b"data"):
                times.append(time.monotonic())
    assert len(times) == 3 and times[2] - times[0] > 0.8, times


@case
def servers_can_want_a_token_and_see_another_host():
    network = {"allow_public_traffic": False, "mask_request_host": "localhost:${PORT}"}
    guarded = Sandbox.create("base", timeout=200, network=network)
    serve(guarded)
    assert guarded.commands.run("true").exit_code == 0  # The agent has a token of its own.
    at = lambda headers: ask(8100, "/", headers, id=guarded.sandbox_id)
    assert at({})[0] == 403 and at({"E2B-Traffic-Access-Token": "0" * 64})[0] == 403
    status, body = at({"E2B-Traffic-Access-Token": guarded.traffic_access_token})
    assert status == 200 and b"localhost:8100" in body, body
    assert guarded.traffic_access_token.encode() not in body
    guarded.kill()


@case
def what_is_not_there_is_told_as_the_reference_tells_it():
    status, body = ask(9999, "/")
    told = json.loads(body)
    assert status == 502 and told["message"] == "The sandbox is running but port is not open", told
    assert told["port"] == 9999 and told["sandboxId"] == sandbox.sandbox_id
    status, body = ask(49983, "/health", id="i" + "0" * 20)
    assert status == 502 and json.loads(body)["message"] == "The sandbox was not found"
    assert ask("x", "/")[0] == 400 and ask(80, "/", id="../x")[0] == 400


@case
def the_nodes_calls_are_out_of_reach():
    for path in [
        "/flames/v1/init",
        "/flames/v1/shutdown",
        "//flames/v1/init",
        "/FLAMES/v1/init",
        "/%66lames/v1/init",
        "/process.Process/%2e%2e/%2e%2e/flames/v1/init",
        "/files/../flames/v1/init",
        "/init",
        "/freeze",
    ]:
        status, _ = ask(49983, path, headers={"X-Flames-Control": "0"}, data=b"{}")
        assert status == 404, (path, status)


@case
def without_the_token_the_agent_serves_nobody():
    start = "/process.Process/List"
    for headers in [{}, {"X-Access-Token": "0" * 64}]:
        status, body = ask(49983, start, headers={**headers, "Content-Type": "application/json"}, data=b"{}")
        assert status == 401 and json.loads(body)["code"] == 401, (status, body)


@case
def a_stream_breaks_when_its_sandbox_is_killed():
    doomed = Sandbox.create("base")
    handle = doomed.commands.run("sleep 100", background=True)
    threading.Timer(1.0, doomed.kill).start()
    start = time.monotonic()
    raises(SandboxException, handle.wait)
    assert time.monotonic() - start < 10


@case
def git_works_with_a_repository_in_the_sandbox():
    sandbox = Sandbox.create("base", timeout=300)
    git = sandbox.git
    git.init("/home/user/origin", bare=True)
    git.clone("/home/user/origin", path="/home/user/work")
    git.configure_user("Ada", "ada@example.org", scope="local", path="/home/user/work")
    sandbox.files.write("/home/user/work/a.txt", "one")
    status = git.status("/home/user/work")
    assert [file.name for file in status.file_status] == ["a.txt"], status
    git.add("/home/user/work")
    git.commit("/home/user/work", "first")
    git.create_branch("/home/user/work", "side")
    assert "side" in git.branches("/home/user/work").branches
    git.push("/home/user/work", remote="origin", branch="side", set_upstream=True)
    assert git.status("/home/user/work").is_clean
    told = sandbox.commands.run("git -C /home/user/origin log --format=%an:%s side").stdout
    assert told == "Ada:first\n", told
    sandbox.kill()


if __name__ == "__main__":
    try:
        main()
    finally:
        sandbox.kill()
