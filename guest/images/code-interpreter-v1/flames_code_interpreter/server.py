"""HTTP on port 49999, as E2B's code interpreter clients speak it.

`POST /execute` answers one JSON object a line, each as soon as the code says something. Whoever hangs up interrupts
what it asked for. Contexts live under `/contexts`.
"""

import asyncio
import json
import os

import tornado.web
from tornado.httpclient import AsyncHTTPClient
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

from flames_code_interpreter import messages, sandbox
from flames_code_interpreter.contexts import Contexts, Refused

PORT = 49999

# Executions are counted, and kept in `In`: the first of a client is the first.
LEAVES_NO_TRACE = """
get_ipython().history_manager.reset(new_session=False)
get_ipython().execution_count = 1
"""


async def serve():
    """Serves until the process ends."""
    contexts = Contexts()
    await contexts.default("python")
    routes = [
        (r"/health", Health),
        (r"/execute", Execute),
        (r"/contexts", ContextList),
        (r"/contexts/([^/]+)", OneContext),
        (r"/contexts/([^/]+)/restart", Restart),
    ]
    application = tornado.web.Application(routes, contexts=contexts, log_function=lambda handler: None)
    await warm_up(application)
    application.listen(PORT)
    await asyncio.Event().wait()


async def warm_up(application):
    """Goes the way of a request once, where nobody sees it: what that loads is in the template's snapshot then."""
    [socket] = bind_sockets(0, "127.0.0.1")
    server = HTTPServer(application)
    server.add_socket(socket)
    url = f"http://127.0.0.1:{socket.getsockname()[1]}/execute"
    await AsyncHTTPClient().fetch(url, method="POST", body=json.dumps({"code": LEAVES_NO_TRACE}))
    server.stop()


class Handler(tornado.web.RequestHandler):
    """Answers refusals as text, which the clients show to their user."""

    @property
    def contexts(self):
        return self.settings["contexts"]

    def set_default_headers(self):
        self.set_header("Access-Control-Allow-Origin", "*")
        self.set_header("Access-Control-Allow-Headers", "*")
        self.set_header("Access-Control-Allow-Methods", "*")

    def options(self, *_):
        self.set_status(204)

    def asked(self):
        """The request's JSON object."""
        try:
            asked = json.loads(self.request.body or b"{}")
        except ValueError as error:
            raise Refused(400, f"the body is no JSON: {error}") from error
        if not isinstance(asked, dict):
            raise Refused(400, "the body must be a JSON object")
        return asked

    def write_error(self, status_code, exc_info=None, **_):
        error = exc_info[1] if exc_info else None
        if isinstance(error, Refused):
            self.set_status(error.status)
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(str(error) if isinstance(error, Refused) else self._reason)

    def log_exception(self, kind, error, trace):
        if not isinstance(error, Refused):
            super().log_exception(kind, error, trace)


class Execute(Handler):
    """Runs code and streams what it says."""

    work = None

    async def post(self):
        asked = self.asked()
        code, env = text(asked, "code") or "", environment(asked)
        context = await self.context(text(asked, "context_id"), text(asked, "language"))
        sandbox_env = await sandbox.environment(self.request.headers.get("X-Access-Token"))
        self.set_header("Content-Type", "application/x-ndjson")
        self.work = asyncio.ensure_future(self.stream(context.execute(code, sandbox_env, env)))
        try:
            await self.work
        except asyncio.CancelledError:
            pass  # nobody listens any more

    async def context(self, context_id, language):
        if context_id and language:
            raise Refused(400, "Only one of context_id or language can be provided")
        if context_id:
            return self.contexts.find(context_id)
        return await self.contexts.default(language)

    async def stream(self, said):
        try:
            async for message in said:
                self.write(json.dumps(message) + "\n")
                await self.flush()
        finally:
            await said.aclose()
        self.write(json.dumps(messages.end()) + "\n")

    def on_connection_close(self):
        if self.work:
            self.work.cancel()


class ContextList(Handler):
    """All contexts, and new ones."""

    def get(self):
        # A list at the top is what the clients want; the framework writes objects only.
        self.set_header("Content-Type", "application/json")
        self.write(json.dumps([context.described() for context in self.contexts]))

    async def post(self):
        asked = self.asked()
        context = await self.contexts.create(text(asked, "language"), text(asked, "cwd"))
        self.write(context.described())


class OneContext(Handler):
    """The end of a context."""

    async def delete(self, context_id):
        await self.contexts.remove(context_id)
        self.set_status(204)


class Restart(Handler):
    """A context anew, under its id."""

    async def post(self, context_id):
        await self.contexts.find(context_id).restart()
        self.set_status(204)


class Health(Handler):
    """Says that the default context runs code: before that nothing listens."""

    def get(self):
        self.write("OK")


def text(asked, name):
    """A field that is a string, or missing."""
    value = asked.get(name)
    if value is not None and not isinstance(value, str):
        raise Refused(400, f"`{name}` must be a string")
    return value


def environment(asked):
    """The call's own variables."""
    env = asked.get("env_vars") or {}
    if not isinstance(env, dict):
        raise Refused(400, "`env_vars` must be an object")
    for name, value in env.items():
        if not name or "=" in name or "\0" in name or not isinstance(value, str) or "\0" in value:
            raise Refused(400, f"`env_vars` must name strings, and {os.fsencode(name)!r} does not")
    return env
