"""The contexts that there are, by id, and the default one of each language."""

import asyncio
import os

from flames_code_interpreter.bash import BashContext
from flames_code_interpreter.python import PythonContext

HOME = os.path.expanduser("~")
LANGUAGES = {"python": PythonContext, "bash": BashContext}


class Refused(Exception):
    """What a client asked for and does not get, with the status that says so."""

    def __init__(self, status, why):
        super().__init__(why)
        self.status = status


class Contexts:
    """Makes contexts, finds and ends them."""

    def __init__(self):
        self._all = {}
        self._default = {}
        self._making_default = asyncio.Lock()

    def __iter__(self):
        return iter(self._all.values())

    def find(self, context_id):
        context = self._all.get(context_id)
        if context is None:
            raise Refused(404, f"Context {context_id} not found")
        return context

    async def default(self, language):
        """The context of a language for who names none; made when it is first asked for."""
        language = known(language)
        async with self._making_default:
            context = self._all.get(self._default.get(language))
            if context is None:
                context = await self.create(language, None)
                self._default[language] = context.id
            return context

    async def create(self, language, cwd):
        kind, cwd = LANGUAGES[known(language)], cwd or HOME
        if not os.path.isdir(cwd):
            raise Refused(400, f"the working directory {cwd} does not exist")
        context = kind(cwd)
        await context.start()
        self._all[context.id] = context
        return context

    async def remove(self, context_id):
        context = self.find(context_id)
        del self._all[context_id]
        await context.end()


def known(language):
    """A language's one name; Python for who names none."""
    name = (language or "python").strip().lower()
    if name not in LANGUAGES:
        raise Refused(400, f"this template runs {' and '.join(LANGUAGES)}, not {name}")
    return name
