"""Under TLS, with HTTP/2 where a client offers it, and by a host name below the domain."""

import os
import socket
import ssl
from urllib.parse import urlsplit

from e2b import Sandbox

from cases import case, main

PLACE = urlsplit(os.environ["E2B_API_URL"])


def connect(name, *protocols):
    context = ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"])
    context.set_alpn_protocols(list(protocols))
    raw = socket.create_connection(("127.0.0.1", PLACE.port), timeout=20)
    return context.wrap_socket(raw, server_hostname=name)


@case
def the_listener_offers_http_2():
    assert connect("box.localhost", "h2", "http/1.1").selected_alpn_protocol() == "h2"
    assert connect("box.localhost", "http/1.1").selected_alpn_protocol() == "http/1.1"


@case
def a_sandbox_works_over_tls():
    sandbox = Sandbox.create("base", timeout=200)
    assert sandbox.commands.run("seq 2000", timeout=60).stdout.endswith("2000\n")
    sandbox.files.write("a", "b" * (5 << 20))
    assert len(sandbox.files.read("a")) == 5 << 20
    sandbox.commands.run("python3 -m http.server 8000 --bind 127.0.0.1", background=True)
    sandbox.commands.run("until ss -ltn | grep -q :8000; do sleep 0.1; done", timeout=30)
    host = sandbox.get_host(8000)
    assert host.endswith(f".box.localhost:{PLACE.port}")
    with connect(host.split(":")[0], "http/1.1") as stream:
        stream.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: stream.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 200") and b"Directory listing" in answer, answer
    sandbox.kill()


if __name__ == "__main__":
    main()
