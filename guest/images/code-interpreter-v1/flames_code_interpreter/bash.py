"""A bash context: one shell that reads its commands from a pipe, so that variables and folders stay."""

import asyncio
import re
import shlex
import uuid

from flames_code_interpreter import messages
from flames_code_interpreter.shell import Shell

INTERRUPT_DEADLINE = 2  # seconds until a shell that does not heed an interrupt is ended
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class BashContext:
    """Runs commands in one shell, one execution after the other."""

    language = "bash"

    def __init__(self, cwd):
        self.id = str(uuid.uuid4())
        self.cwd = cwd
        self._lock = asyncio.Lock()
        self._shell = None
        self._removed = False
        self._count = 0
        self._sandbox_env = {}

    def described(self):
        return {"id": self.id, "language": self.language, "cwd": self.cwd}

    async def start(self):
        self._sandbox_env = {}
        self._shell = await Shell.start(self.cwd)

    async def restart(self):
        if self._lock.locked():
            self._shell.end()  # which ends what waits for it
        async with self._lock:
            await self._renew()
            self._count = 0

    async def end(self):
        self._removed = True
        self._shell.end()
        async with self._lock:
            await self._shell.ended()

    async def execute(self, code, sandbox_env, env):
        """What the commands write, piece by piece. Whoever stops listening interrupts them."""
        async with self._lock:
            self._count += 1
            yield messages.executions(self._count)
            self._shell.send(self._news(sandbox_env) + exports(env) + code)
            finished = False
            try:
                async for stream, said in self._shell.output():
                    yield messages.output(stream, said)
                finished = True
            finally:
                if not finished:
                    await asyncio.shield(self._interrupt())
            status = await self._status()
            await self._forget(sandbox_env, env)
            if status:
                yield messages.error("ExitCode", str(status))

    async def _status(self):
        """How the commands ended. If the shell ended with them, the context starts anew."""
        if self._shell.status is not None:
            return self._shell.status
        status = await self._shell.ended()
        if not self._removed:
            await self.start()
        return status

    async def _renew(self):
        self._shell.end()
        await self._shell.ended()
        await self.start()

    def _news(self, sandbox_env):
        """The sandbox's variables, once: the code may change them."""
        if sandbox_env == self._sandbox_env:
            return ""
        self._sandbox_env = sandbox_env
        return exports(sandbox_env)

    async def _forget(self, sandbox_env, env):
        """A call's own variables end with it, and cover those of the sandbox no more."""
        names = " ".join(name for name in env if NAME.fullmatch(name))
        if not names or self._removed:
            return
        covered = {name: value for name, value in sandbox_env.items() if name in env}
        self._shell.send(f"unset {names}\n" + exports(covered))
        async for _ in self._shell.output():
            pass

    async def _interrupt(self):
        self._shell.interrupt()
        try:
            await asyncio.wait_for(self._rest(), INTERRUPT_DEADLINE)
        except asyncio.TimeoutError:
            await self._renew()

    async def _rest(self):
        async for _ in self._shell.output():
            pass
        await self._status()


def exports(env):
    """Commands that set variables; what is no name of a shell's variable is left out."""
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in env.items() if NAME.fullmatch(name))
