"""One bash process with its pipes."""

import asyncio
import codecs
import os
import signal

# Commands end with a NUL; the status of each is told on a pipe of its own. Neither pipe is for the commands.
LOOP = r"""
trap : INT
while :; do
    IFS= read -r -d '' -u {commands} code || {{ [ $? -gt 128 ] && continue; break; }}
    eval "$code" </dev/null {commands}<&- {statuses}>&-
    printf '%d\n' "$?" >&{statuses}
done
"""


class Shell:
    """Takes commands, and tells what they write and how they end."""

    def __init__(self, process, commands, statuses, streams):
        self._process = process
        self._commands = commands
        self._statuses = statuses
        # By descriptor: the name and the decoder of what comes from it.
        self._streams = {fd: (name, codecs.getincrementaldecoder("utf-8")("replace")) for name, fd in streams}
        self._told = asyncio.Queue()
        self._leaves = False
        self.status = None
        loop = asyncio.get_running_loop()
        for fd in self._streams:
            loop.add_reader(fd, self._read, fd)
        loop.add_reader(statuses, self._read_status)

    @classmethod
    async def start(cls, cwd):
        (commands_read, commands), (statuses, statuses_write) = os.pipe(), os.pipe()
        (out, out_write), (err, err_write) = os.pipe(), os.pipe()
        script = LOOP.format(commands=commands_read, statuses=statuses_write)
        process = await asyncio.create_subprocess_exec(
            "/bin/bash", "--noprofile", "--norc", "-c", script,
            cwd=cwd, env={**os.environ, "PWD": cwd}, start_new_session=True,
            stdin=asyncio.subprocess.DEVNULL, stdout=out_write, stderr=err_write,
            pass_fds=(commands_read, statuses_write),
        )  # fmt: skip
        for fd in (commands_read, statuses_write, out_write, err_write):
            os.close(fd)
        for fd in (statuses, out, err):
            os.set_blocking(fd, False)
        return cls(process, os.fdopen(commands, "wb", buffering=0), statuses, [("stdout", out), ("stderr", err)])

    def send(self, code):
        """Gives the shell commands; a NUL cannot be part of any."""
        self.status = None
        # In a thread of its own: a pipe takes 64 KiB at once.
        asyncio.get_running_loop().run_in_executor(None, self._write, code.replace("\0", "").encode() + b"\0")

    async def output(self):
        """What is written until the commands end; `status` tells how, and is None if the shell ended with them."""
        while True:
            kind, value = await self._told.get()
            if kind == "status":
                self.status = value
                return
            yield kind, value

    def interrupt(self):
        """As Ctrl-C does."""
        self._signal(signal.SIGINT)

    def end(self):
        """Ends the shell and what it runs, unless it ended by itself."""
        if not self._leaves:
            self._signal(signal.SIGKILL)

    async def ended(self):
        """The status of a shell that ended or is about to."""
        status = await self._process.wait()
        if not self._commands.closed:
            self._close()
        return status

    def _write(self, data):
        try:
            self._commands.write(data)
        except (OSError, ValueError):
            pass  # the shell is gone, which its status pipe tells

    def _signal(self, number):
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            pass

    def _read(self, fd):
        """Takes all that is there."""
        name, decoder = self._streams[fd]
        while True:
            try:
                data = os.read(fd, 1 << 16)
            except BlockingIOError:
                return
            if not data:
                asyncio.get_running_loop().remove_reader(fd)
                return
            self._told.put_nowait((name, decoder.decode(data)))

    def _read_status(self):
        """What the commands wrote was written before their status."""
        data = os.read(self._statuses, 64)
        for fd in self._streams:
            self._read(fd)
        if data:
            self._told.put_nowait(("status", int(data)))
            return
        self._leaves = True
        self._told.put_nowait(("status", None))
        asyncio.get_running_loop().remove_reader(self._statuses)

    def _close(self):
        loop = asyncio.get_running_loop()
        for fd in (self._statuses, *self._streams):
            loop.remove_reader(fd)
            os.close(fd)
        self._streams = {}
        self._commands.close()
