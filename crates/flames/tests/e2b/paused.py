"""Sandboxes that rest and come back: pause, connect, timeouts that pause, wake by a request, snapshots, forks."""

import json
import os
import time
import urllib.error
import urllib.request

from e2b import NotFoundException, Sandbox, SandboxException, SandboxQuery, SandboxState

from cases import case, eventually, main, raises

URL = os.environ["E2B_SANDBOX_URL"]


def ask(sandbox, port, path):
    named = {"E2b-Sandbox-Id": sandbox.sandbox_id, "E2b-Sandbox-Port": str(port)}
    try:
        with urllib.request.urlopen(urllib.request.Request(URL + path, headers=named), timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def state(sandbox):
    return sandbox.get_info().state


@case
def a_paused_sandbox_comes_back_with_its_memory_and_files():
    sandbox = Sandbox.create("base", timeout=300, metadata={"rests": "yes"})
    sandbox.files.write("kept", "here")
    process = sandbox.commands.run("sleep 1000", background=True)
    boot = sandbox.commands.run("cat /proc/sys/kernel/random/boot_id").stdout
    assert sandbox.pause() is True
    assert sandbox.pause() is False
    assert sandbox.is_running() is False and state(sandbox) == SandboxState.PAUSED
    status, body = ask(sandbox, 49983, "/health")
    assert (status, json.loads(body)["message"]) == (502, "The sandbox was not found")
    resting = Sandbox.list(query=SandboxQuery(metadata={"rests": "yes"}, state=[SandboxState.PAUSED]))
    assert [one.sandbox_id for one in resting.next_items()] == [sandbox.sandbox_id]
    again = Sandbox.connect(sandbox.sandbox_id, timeout=200)
    assert again.sandbox_id == sandbox.sandbox_id and state(again) == SandboxState.RUNNING
    assert again.files.read("kept") == "here"
    assert again.commands.run("cat /proc/sys/kernel/random/boot_id").stdout == boot
    assert process.pid in [one.pid for one in sandbox.commands.list()]  # The old handle works too.
    now = float(again.commands.run("date +%s.%N").stdout)
    assert abs(now - time.time()) < 2, now - time.time()
    assert again.kill() is True
    raises(NotFoundException, sandbox.pause)


BOOT = "cat /proc/sys/kernel/random/boot_id"


def pause_mode(sandbox):
    """What the clients have no name for yet."""
    key = {"X-API-Key": os.environ["E2B_API_KEY"]}
    url = f"{os.environ['E2B_API_URL']}/sandboxes/{sandbox.sandbox_id}"
    with urllib.request.urlopen(urllib.request.Request(url, headers=key)) as answer:
        return json.load(answer).get("pauseMode")


@case
def a_sandbox_whose_files_alone_were_kept_boots_and_is_the_same():
    sandbox = Sandbox.create("base", timeout=300, metadata={"kept": "files"}, envs={"COLOUR": "red"})
    sandbox.files.write("kept", "here")
    sandbox.commands.run("sleep 1000", background=True)
    host = sandbox.commands.run("hostname").stdout
    boot = sandbox.commands.run(BOOT).stdout
    assert sandbox.pause(mode="filesystem") is True
    assert sandbox.pause(mode="filesystem") is False
    assert (state(sandbox), pause_mode(sandbox)) == (SandboxState.PAUSED, "filesystem")
    again = Sandbox.connect(sandbox.sandbox_id, timeout=200, on_resume="reboot")
    assert again.get_info().metadata == {"kept": "files"}
    assert again.files.read("kept") == "here"
    assert sandbox.commands.run("echo $COLOUR; hostname").stdout == f"red\n{host}"  # The old handle works, too.
    assert again.commands.run(BOOT).stdout != boot
    assert again.commands.list() == []
    assert again.pause(keep_memory=True, strict=True) is True and pause_mode(again) == "full"
    raises(SandboxException, lambda: Sandbox.connect(again.sandbox_id, on_resume="reboot"))
    again.connect()
    assert again.kill() is True


@case
def a_timeout_keeps_the_files_alone_when_that_was_asked_for():
    rule = {"action": "pause", "mode": "filesystem"}
    sandbox = Sandbox.create("base", timeout=300, lifecycle={"on_timeout": rule})
    sandbox.files.write("kept", "here")
    sandbox.set_timeout(1)
    eventually(lambda: state(sandbox) == SandboxState.PAUSED, 20)
    assert pause_mode(sandbox) == "filesystem"
    again = Sandbox.connect(sandbox.sandbox_id, timeout=100)
    assert again.files.read("kept") == "here"
    again.kill()


@case
def a_snapshot_of_the_files_alone_boots():
    sandbox = Sandbox.create("base", timeout=300, envs={"COLOUR": "red"})
    sandbox.files.write("state", "one")
    boot = sandbox.commands.run(BOOT).stdout
    snapshot = sandbox.create_snapshot(mode="filesystem")
    sandbox.files.write("state", "two")
    assert sandbox.commands.run(BOOT).stdout == boot  # It goes on, and writes.
    clone = Sandbox.create(snapshot.snapshot_id)
    assert clone.files.read("state") == "one" and clone.commands.run(BOOT).stdout != boot
    assert sandbox.files.read("state") == "two"
    clone.kill(), sandbox.kill()
    assert Sandbox.delete_snapshot(snapshot.snapshot_id) is True


@case
def a_paused_sandbox_can_be_killed():
    sandbox = Sandbox.create("base", timeout=300)
    sandbox.pause()
    assert sandbox.kill() is True and sandbox.kill() is False


@case
def a_timeout_pauses_when_that_was_asked_for():
    sandbox = Sandbox.create("base", timeout=300, lifecycle={"on_timeout": "pause"})
    sandbox.set_timeout(1)
    eventually(lambda: state(sandbox) == SandboxState.PAUSED, 20)
    again = Sandbox.connect(sandbox.sandbox_id, timeout=100)
    assert again.commands.run("echo back").stdout == "back\n"
    again.kill()


@case
def a_request_wakes_a_sandbox_that_wants_it():
    lifecycle = {"on_timeout": "pause", "auto_resume": True}
    sandbox = Sandbox.create("base", timeout=300, lifecycle=lifecycle)
    sandbox.files.write("www/x", "awake")
    sandbox.commands.run("python3 -m http.server 8000 -d www", background=True)
    eventually(lambda: ask(sandbox, 8000, "/x") == (200, b"awake"), 20)
    sandbox.pause()
    assert sandbox.is_running() is False  # Asking for health wakes nobody.
    assert ask(sandbox, 8000, "/x") == (200, b"awake")
    assert sandbox.is_running() is True
    sandbox.pause()
    assert sandbox.commands.run("echo again").stdout == "again\n"
    sandbox.kill()


@case
def a_snapshot_outlives_its_sandbox():
    sandbox = Sandbox.create("base", timeout=300)
    sandbox.files.write("state", "one")
    snapshot = sandbox.create_snapshot()
    sandbox.files.write("state", "two")
    named = sandbox.create_snapshot(name="golden")
    assert any("golden" in name for name in named.names)
    assert sandbox.files.read("state") == "two"
    sandbox.kill()
    first, second = Sandbox.create(snapshot.snapshot_id), Sandbox.create(named.snapshot_id)
    assert (first.files.read("state"), second.files.read("state")) == ("one", "two")
    first.files.write("state", "three")
    assert second.files.read("state") == "two"
    ids = [one.snapshot_id for one in Sandbox.list_snapshots().next_items()]
    assert snapshot.snapshot_id in ids and named.snapshot_id in ids
    first.kill(), second.kill()
    for one in (snapshot, named):
        assert Sandbox.delete_snapshot(one.snapshot_id) is True
        assert Sandbox.delete_snapshot(one.snapshot_id) is False


@case
def forks_share_the_past_and_nothing_else():
    sandbox = Sandbox.create("base", timeout=300)
    sandbox.files.write("past", "shared")
    forks = sandbox.fork(count=2, timeout=200)
    assert len({one.sandbox_id for one in [sandbox, *forks]}) == 3
    for n, fork in enumerate(forks):
        assert fork.files.read("past") == "shared"
        fork.files.write("past", str(n))
    assert [fork.files.read("past") for fork in forks] == ["0", "1"]
    assert sandbox.files.read("past") == "shared"
    for one in [sandbox, *forks]:
        one.kill()


if __name__ == "__main__":
    main()
