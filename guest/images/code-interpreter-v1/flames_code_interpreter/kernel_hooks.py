"""What a Python kernel loads: variables of a call, randomness of its own for each sandbox, and more kinds of results."""

import json
import os
import random
import sys

from IPython.core.formatters import BaseFormatter
from traitlets import ObjectName, Unicode

from flames_code_interpreter.machine import machine_id


def load_ipython_extension(shell):
    hooks = Hooks(shell)
    shell.events.register("pre_run_cell", hooks.before)
    shell.events.register("post_run_cell", hooks.after)
    formatters = shell.display_formatter.formatters
    formatters["application/json"].for_type(dict, plain_json)
    formatters["application/json"].for_type(list, plain_json)
    formatters["e2b/data"] = DataFormatter(parent=shell.display_formatter)
    formatters["e2b/data"].for_type_by_name("pandas.core.frame", "DataFrame", columns)
    warm_up(shell)


class Hooks:
    """What happens around each execution."""

    def __init__(self, shell):
        self._shell = shell
        self._machine = machine_id()
        self._sandbox_env = {}
        self._before = {}

    def before(self, info):
        self._reseed_if_cloned()
        asked = self._shell.kernel.get_parent().get("metadata", {}).get("flames", {})
        if asked.get("sandbox_env", {}) != self._sandbox_env:
            self._sandbox_env = asked["sandbox_env"]
            os.environ.update(self._sandbox_env)
        for name, value in asked.get("env", {}).items():
            self._before[name] = os.environ.get(name)
            os.environ[name] = value

    def after(self, result):
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        self._before.clear()

    def _reseed_if_cloned(self):
        """Clones of one snapshot have the same state of every generator that was seeded before it was taken. A clone
        has a machine id of its own."""
        machine = machine_id()
        if machine == self._machine:
            return
        self._machine = machine
        random.seed()
        numpy = sys.modules.get("numpy")
        if numpy is not None:
            numpy.random.seed()


class DataFormatter(BaseFormatter):
    """The values of a table, by column."""

    format_type = Unicode("e2b/data")
    print_method = ObjectName("_repr_e2b_data_")
    _return_type = dict


def columns(table):
    shown = {}
    for name, values in table.to_dict(orient="list").items():
        shown[str(name)] = [value.isoformat() if hasattr(value, "isoformat") else value for value in values]
    return shown


def plain_json(value):
    """Lists and dictionaries that JSON can hold are results of that kind, too."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return None
    return value


def warm_up(shell):
    """The first error of a kernel imports much: better before the snapshot is taken."""
    try:
        raise ValueError
    except ValueError:
        shell.InteractiveTB.structured_traceback(*sys.exc_info())
