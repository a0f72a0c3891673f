"""The same house through the asynchronous Python client."""

import asyncio

from e2b import AsyncSandbox, CommandExitException, NotFoundException, SandboxQuery

from cases import case, main


@case
async def a_whole_life():
    sandbox = await AsyncSandbox.create("base", timeout=200, metadata={"client": "async"}, envs={"A": "1"})
    assert await sandbox.is_running()
    info = await sandbox.get_info()
    assert info.metadata == {"client": "async"}
    page = await AsyncSandbox.list(query=SandboxQuery(metadata={"client": "async"})).next_items()
    assert [one.sandbox_id for one in page] == [sandbox.sandbox_id]
    assert (await sandbox.commands.run("echo $A")).stdout == "1\n"
    try:
        await sandbox.commands.run("exit 5")
        raise AssertionError("no error")
    except CommandExitException as error:
        assert error.exit_code == 5
    await sandbox.files.write("a/b.txt", "ü")
    assert await sandbox.files.read("a/b.txt") == "ü"
    again = await AsyncSandbox.connect(sandbox.sandbox_id)
    assert [one.name for one in await again.files.list("a")] == ["b.txt"]
    assert len(await sandbox.get_metrics()) == 1
    await sandbox.set_timeout(60)
    assert await sandbox.kill() is True and await sandbox.kill() is False
    try:
        await sandbox.get_info()
        raise AssertionError("no error")
    except NotFoundException:
        pass


@case
async def commands_overlap_and_a_cancelled_one_goes_on():
    sandbox = await AsyncSandbox.create("base", timeout=200)
    runs = [sandbox.commands.run(f"sleep 1; echo {n}") for n in range(8)]
    assert [one.stdout for one in await asyncio.gather(*runs)] == [f"{n}\n" for n in range(8)]
    left = asyncio.create_task(sandbox.commands.run("sleep 1; echo > /tmp/late; sleep 50", timeout=100))
    await asyncio.sleep(0.7)
    left.cancel()
    await asyncio.sleep(1.5)
    assert await sandbox.files.exists("/tmp/late")
    await sandbox.kill()


@case
async def a_watch_streams():
    sandbox = await AsyncSandbox.create("base", timeout=200)
    await sandbox.files.make_dir("/home/user/w")
    seen, first = [], asyncio.Event()

    def note(event):
        seen.append(event)
        first.set()

    watch = await sandbox.files.watch_dir("/home/user/w", on_event=note)
    await sandbox.files.write("/home/user/w/new", "x")
    await asyncio.wait_for(first.wait(), 10)
    await asyncio.sleep(0.3)
    assert {event.name for event in seen} == {"new"} and len(seen) == 3, seen
    await watch.stop()
    await sandbox.kill()


@case
async def a_stream_breaks_when_its_sandbox_is_killed():
    sandbox = await AsyncSandbox.create("base", timeout=200)
    handle = await sandbox.commands.run("sleep 100", background=True)
    await sandbox.kill()
    try:
        await asyncio.wait_for(handle.wait(), 10)
        raise AssertionError("it ended well")
    except asyncio.TimeoutError:
        raise
    except Exception as error:
        assert "sandbox" in str(error).lower(), error


if __name__ == "__main__":
    main()
