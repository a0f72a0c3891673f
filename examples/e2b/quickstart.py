"""Runs code in a sandbox. E2B_API_URL, E2B_SANDBOX_URL and E2B_API_KEY say where."""

from e2b import Sandbox

with Sandbox.create("base", timeout=120, metadata={"made-by": "quickstart"}) as sandbox:
    sandbox.files.write("primes.py", "print([n for n in range(2, 60) if all(n % d for d in range(2, n))])")
    print(sandbox.commands.run("python3 primes.py").stdout, end="")
    for file in sandbox.files.list("."):
        print(file.name, file.size)
