"""The lines of an execution, as the clients read them."""

import time

FIELDS = {
    "text/plain": "text",
    "text/html": "html",
    "text/markdown": "markdown",
    "image/svg+xml": "svg",
    "image/png": "png",
    "image/jpeg": "jpeg",
    "application/pdf": "pdf",
    "text/latex": "latex",
    "application/json": "json",
    "application/javascript": "javascript",
    "e2b/data": "data",
    "e2b/chart": "chart",
}


def output(stream, said):
    """A piece of `stdout` or `stderr`, with the time in nanoseconds since 1970."""
    return {"type": stream, "text": said, "timestamp": time.time_ns()}


def result(bundle, is_main):
    """A value that was shown: the last expression's, or one that the code displayed."""
    known = {FIELDS[kind]: value for kind, value in bundle.items() if kind in FIELDS}
    if "text" in known:
        known["text"] = without_quotes(known["text"])
    extra = {kind: value for kind, value in bundle.items() if kind not in FIELDS}
    return {"type": "result", **known, **({"extra": extra} if extra else {}), "is_main_result": is_main}


def error(name, value, traceback=""):
    return {"type": "error", "name": name, "value": value, "traceback": traceback}


def executions(count):
    """How many executions the context has seen."""
    return {"type": "number_of_executions", "execution_count": count}


def end():
    return {"type": "end_of_execution"}


def without_quotes(shown):
    """A string is shown as it is, not as Python would write it."""
    if len(shown) > 1 and shown[0] == shown[-1] and shown[0] in "'\"":
        return shown[1:-1]
    return shown
