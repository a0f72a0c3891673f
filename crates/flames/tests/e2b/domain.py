"""Domain mode: one variable beside the key, names instead of headers, a certificate of one's own authority."""

import ssl
import urllib.request

from e2b import Sandbox

sandbox = Sandbox.create("base", timeout=120)
assert sandbox.commands.run("echo by name").stdout == "by name\n"
sandbox.files.write("/tmp/page/index.html", "hello from a name")
sandbox.commands.run("cd /tmp/page && python3 -m http.server 8000", background=True)
sandbox.commands.run("until curl -s localhost:8000 >/dev/null; do sleep 0.1; done", timeout=60)
host = sandbox.get_host(8000)
assert host.startswith(f"8000-{sandbox.sandbox_id}.box.test"), host
with urllib.request.urlopen(f"https://{host}/", context=ssl.create_default_context()) as answer:
    assert answer.read() == b"hello from a name"
with urllib.request.urlopen(sandbox.download_url("/tmp/page/index.html")) as answer:
    assert answer.read() == b"hello from a name"
assert sandbox.kill() is True
print("by name: ok")
