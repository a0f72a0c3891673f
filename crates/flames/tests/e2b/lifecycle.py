"""The life of sandboxes through the unmodified Python client, sync. Runs with every version that is installed."""

import datetime
import inspect
import json
import os
import time
import urllib.error
import urllib.request
import uuid
from concurrent.futures import ThreadPoolExecutor

from e2b import (
    AuthenticationException,
    NotFoundException,
    Sandbox,
    SandboxException,
    SandboxQuery,
    SandboxState,
)

from cases import case, eventually, main, raises

ODD = {"name": "Ä & = + % /", "mark": uuid.uuid4().hex, "a b": "1,2;3"}


def listed(query=None, limit=None, **options):
    pages = Sandbox.list(query=query, limit=limit, **options)
    found = []
    while pages.has_next:
        found += pages.next_items()
    return found


@case
def a_sandbox_is_created_looked_at_and_killed():
    sandbox = Sandbox.create("base", timeout=120, metadata=ODD, envs={"GREETING": "hello"})
    assert sandbox.is_running()
    assert sandbox.commands.run("echo $GREETING $E2B_SANDBOX").stdout == "hello true\n"
    info = sandbox.get_info()
    assert info.sandbox_id == sandbox.sandbox_id and info.metadata == ODD
    assert info.state == SandboxState.RUNNING and info.template_id == "base"
    left = info.end_at - datetime.datetime.now(datetime.timezone.utc)
    assert 60 < left.total_seconds() <= 120, left
    assert sandbox.kill() is True
    assert sandbox.kill() is False and Sandbox.kill(sandbox.sandbox_id) is False
    assert sandbox.is_running() is False
    raises(NotFoundException, sandbox.get_info)
    raises(Exception, lambda: sandbox.commands.run("true"), "not found")


@case
def a_timeout_ends_a_sandbox_within_a_second():
    sandbox = Sandbox.create("base", timeout=120)
    sandbox.set_timeout(1)
    start = time.monotonic()
    eventually(lambda: not sandbox.is_running(), 5)
    took = time.monotonic() - start
    assert 0.5 < took < 2.5, took
    raises(NotFoundException, lambda: sandbox.set_timeout(10))


@case
def connect_extends_and_never_shortens():
    sandbox = Sandbox.create("base", timeout=200)
    first = sandbox.get_info().end_at
    again = Sandbox.connect(sandbox.sandbox_id, timeout=50)
    assert again.get_info().end_at == first
    again = Sandbox.connect(sandbox.sandbox_id, timeout=400)
    assert again.get_info().end_at > first + datetime.timedelta(seconds=150)
    sandbox.set_timeout(30)
    assert sandbox.get_info().end_at < first
    assert again.commands.run("echo same").stdout == "same\n"
    sandbox.kill()
    raises(NotFoundException, lambda: Sandbox.connect(sandbox.sandbox_id))


@case
def lists_filter_sort_and_page():
    mark = {"batch": uuid.uuid4().hex}
    made = [Sandbox.create("base", metadata={**mark, "n": str(n)}) for n in range(3)]
    ids = [sandbox.sandbox_id for sandbox in made]
    of = lambda found: [one.sandbox_id for one in found]
    assert of(listed(SandboxQuery(metadata=mark))) == ids[::-1]
    assert of(listed(SandboxQuery(metadata=mark), limit=1)) == ids[::-1]
    assert of(listed(SandboxQuery(metadata={**mark, "n": "1"}))) == ids[1:2]
    assert of(listed(SandboxQuery(metadata=mark, state=[SandboxState.PAUSED]))) == []
    page = Sandbox.list(query=SandboxQuery(metadata=mark), limit=2)
    assert len(page.next_items()) == 2 and page.has_next
    assert len(page.next_items()) == 1 and not page.has_next
    for sandbox in made:
        sandbox.kill()
    assert listed(SandboxQuery(metadata=mark)) == []


@case
def mistakes_are_the_clients_own_exceptions():
    raises(SandboxException, lambda: Sandbox.create("no-such-template"), "no-such-template")
    raises(AuthenticationException, lambda: Sandbox.create("base", api_key="e2b_" + "0" * 64))
    raises(NotFoundException, lambda: Sandbox.connect("i" + "0" * 20))
    assert Sandbox.kill("i" + "0" * 20) is False
    raises(SandboxException, lambda: Sandbox.create("base", mcp={"browserbase": {}}), "mcp")


@case
def malformed_requests_get_errors_that_clients_can_parse():
    def ask(method, path, body=None, **headers):
        headers = {"X-API-KEY": os.environ["E2B_API_KEY"], **headers}
        url = os.environ["E2B_API_URL"] + path
        request = urllib.request.Request(url, data=body, method=method, headers=headers)
        error = raises(urllib.error.HTTPError, lambda: urllib.request.urlopen(request, timeout=20))
        told = json.loads(error.read())
        assert told["code"] == error.code and told["message"], told
        return error.code

    for body in [b"{", b"[]", b'{"templateID":7}', b'{"templateID":"base","timeout":"x"}', b"\xff", b"{}"]:
        assert ask("POST", "/v2/sandboxes", body) == 400, body
    assert ask("POST", "/sandboxes", b"x" * (2 << 20)) == 413
    assert ask("GET", "/v2/sandboxes", **{"X-API-KEY": "e2b_00"}) == 401
    assert ask("GET", "/no/such/call") == 404 and ask("PATCH", "/sandboxes") == 405
    assert ask("GET", "/sandboxes/..%2f..%2fetc") == 404 and ask("DELETE", "/sandboxes/UPPER") == 404
    for query in ["limit=0", "limit=x", "limit=101", "state=dead", "order=up", "nextToken=%00", "startedAfter=x"]:
        assert ask("GET", "/v2/sandboxes?" + query) == 400, query
    assert ask("POST", "/v3/templates", b"{}") == 501
    assert ask("POST", "/sandboxes/i" + "0" * 20 + "/timeout", b"{}") == 400
    for path in ["/timeout", "/refreshes", "/pause", "/connect", "/snapshots", "/fork"]:
        assert ask("POST", "/sandboxes/i" + "0" * 20 + path, b'{"timeout":1}') == 404, path


@case
def metrics_are_inside_their_range_and_remembered():
    sandbox = Sandbox.create("base", timeout=120)
    now = datetime.datetime.now(datetime.timezone.utc)
    first = sandbox.get_metrics()[-1]
    assert first.mem_total > 100 << 20 and 0 < first.mem_used < first.mem_total
    assert first.disk_total > 0 and first.cpu_count == 1
    before = now - datetime.timedelta(hours=1)
    assert sandbox.get_metrics(start=before, end=before + datetime.timedelta(minutes=1)) == []
    # The next one comes by the clock of the daemon.
    eventually(lambda: len(sandbox.get_metrics(start=before)) >= 2, 40)
    times = [metric.timestamp for metric in sandbox.get_metrics(start=before, end=now + datetime.timedelta(minutes=5))]
    assert len(times) >= 2 and times == sorted(set(times)), times
    sandbox.kill()


@case
def a_key_makes_one_sandbox_however_often_it_is_sent():
    if "idempotency_key" not in inspect.signature(Sandbox.create).parameters:
        return
    key = f"key-{uuid.uuid4().hex}"
    first = Sandbox.create("base", timeout=120, idempotency_key=key)
    second = Sandbox.create("base", timeout=120, idempotency_key=key)
    assert first.sandbox_id == second.sandbox_id
    other = Sandbox.create("base", timeout=120, idempotency_key=key + "-other")
    assert other.sandbox_id != first.sandbox_id
    assert first.kill() and other.kill()


@case
def thirty_sandboxes_at_once():
    def life(n):
        sandbox = Sandbox.create("base", timeout=300, request_timeout=280)
        try:
            return sandbox.commands.run(f"echo {n}", timeout=120, request_timeout=120).stdout
        finally:
            sandbox.kill()

    with ThreadPoolExecutor(30) as pool:
        assert list(pool.map(life, range(30))) == [f"{n}\n" for n in range(30)]


if __name__ == "__main__":
    main()
