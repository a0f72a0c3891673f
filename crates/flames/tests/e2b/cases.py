"""Cases are functions; each is run, timed and named. The first argument chooses those whose name holds it."""

import asyncio
import inspect
import os
import sys
import time
import traceback

_cases = []


def case(function):
    _cases.append(function)
    return function


def raises(kind, call, *words):
    """The error of a call that must fail with it."""
    try:
        call()
    except kind as error:
        for word in words:
            assert word in str(error), f"{word!r} is not in {error!r}"
        return error
    raise AssertionError(f"no {kind.__name__}")


def eventually(holds, seconds=10):
    """Waits for outside state; the promise of a time is the case's own."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.05)


def main():
    chosen = sys.argv[1] if len(sys.argv) > 1 else ""
    failed = 0
    for function in _cases:
        if chosen not in function.__name__:
            continue
        start = time.monotonic()
        try:
            result = function()
            if inspect.iscoroutine(result):
                asyncio.run(result)
            word = "ok"
        except Exception:
            traceback.print_exc()
            failed += 1
            word = "FAILED"
        print(f"{word} {function.__name__} ({time.monotonic() - start:.2f} s)", flush=True)
    # Not sys.exit: while the interpreter is taken down, threads of pyqwest, which carries the client's requests, may
    # abort the process (https://github.com/curioswitch/pyqwest/issues/164; 0.12.0 still does).
    sys.stderr.flush()
    os._exit(1 if failed else 0)
