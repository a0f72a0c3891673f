"""A Python context: an IPython kernel in a process of its own."""

import asyncio
import os
import shutil
import tempfile
import uuid

from jupyter_client.manager import AsyncKernelManager

from flames_code_interpreter import messages

# A kernel writes no history, has nobody to complete for, and does not look every second whether its parent lives.
ARGUMENTS = [
    "--HistoryManager.enabled=False",
    "--IPCompleter.use_jedi=False",
    "--IPKernelApp.parent_handle=0",
    "--InteractiveShellApp.extensions=flames_code_interpreter.kernel_hooks",
]
KILLED = ("KernelDied", "the Python process ended: the context starts anew, without its variables")
RESTARTED = ("ContextRestarting", "Context was restarted")
REMOVED = ("ContextRemoved", "Context was removed")
START_DEADLINE = 120  # seconds: a processor that is emulated takes ten and more


class PythonContext:
    """Runs code in one kernel, one execution after the other."""

    language = "python"

    def __init__(self, cwd):
        self.id = str(uuid.uuid4())
        self.cwd = cwd
        self._lock = asyncio.Lock()
        self._folder = None
        self._manager = None
        self._client = None
        # What an execution is told whose process ends under it.
        self._end = KILLED

    def described(self):
        return {"id": self.id, "language": self.language, "cwd": self.cwd}

    async def start(self):
        # Unix sockets: a restored machine resets the TCP connections that it inherits, loopback included.
        self._folder = tempfile.mkdtemp(prefix="kernel-")
        sockets = {"transport": "ipc", "ip": os.path.join(self._folder, "s")}
        self._manager = AsyncKernelManager(
            connection_file=os.path.join(self._folder, "kernel.json"), **sockets
        )
        env = {**os.environ, "IPYTHONDIR": os.path.join(self._folder, "ipython"), "PWD": self.cwd}
        await self._manager.start_kernel(extra_arguments=ARGUMENTS, cwd=self.cwd, env=env)
        await self._connect()

    async def restart(self):
        if self._lock.locked():
            self._end = RESTARTED
            await self._manager.provisioner.kill()  # which ends what waits for it
        async with self._lock:
            await self._renew()

    async def end(self):
        self._end = REMOVED
        await self._manager.provisioner.kill()
        async with self._lock:
            self._client.stop_channels()
            await self._manager.shutdown_kernel(now=True)
            shutil.rmtree(self._folder, ignore_errors=True)

    async def execute(self, code, sandbox_env, env):
        """What the code says, message by message. Whoever stops listening interrupts it."""
        async with self._lock:
            request = self._request(code, sandbox_env, env)
            self._client.shell_channel.send(request)
            finished = False
            try:
                async for message in self._told(request["header"]["msg_id"]):
                    yield message
                finished = True
            finally:
                if not finished:
                    await asyncio.shield(self._manager.interrupt_kernel())

    def _request(self, code, sandbox_env, env):
        content = {
            "code": code,
            "silent": False,
            "store_history": True,
            "user_expressions": {},
            "allow_stdin": False,
            # What waits behind an execution that was interrupted must run.
            "stop_on_error": False,
        }
        metadata = {"flames": {"sandbox_env": sandbox_env, "env": env}}
        return self._client.session.msg("execute_request", content=content, metadata=metadata)

    async def _told(self, msg_id):
        """The messages of one execution, until the kernel has nothing more to do for it."""
        death, said = asyncio.ensure_future(self._manager.provisioner.wait()), None
        try:
            while True:
                said = asyncio.ensure_future(self._client.get_iopub_msg(timeout=None))
                await asyncio.wait({said, death}, return_when=asyncio.FIRST_COMPLETED)
                if not said.done():
                    yield await self._died()
                    return
                message = said.result()
                if message["parent_header"].get("msg_id") != msg_id:
                    continue  # of an execution whose listener went away
                if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                    return
                told = translated(message["msg_type"], message["content"])
                if told:
                    yield told
        finally:
            death.cancel()
            said.cancel()

    async def _died(self):
        end = self._end
        if end is KILLED:
            await self._renew()
        return messages.error(*end)

    async def _renew(self):
        self._end = KILLED
        self._client.stop_channels()
        await self._manager.restart_kernel(now=True)
        await self._connect()

    async def _connect(self):
        self._client = self._manager.client()
        self._client.start_channels(stdin=False, hb=False)
        await self._client.wait_for_ready(timeout=START_DEADLINE)


def translated(kind, content):
    """A kernel's message as the clients know it, or nothing."""
    if kind == "stream":
        return messages.output(content["name"], content["text"])
    if kind in ("execute_result", "display_data"):
        return messages.result(content["data"], kind == "execute_result")
    if kind == "error":
        return messages.error(content["ename"], content["evalue"], "\n".join(content["traceback"]))
    if kind == "execute_input":
        return messages.executions(content["execution_count"])
    return None
