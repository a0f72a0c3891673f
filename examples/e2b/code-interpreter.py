"""Runs code that keeps its state between calls. E2B_API_URL, E2B_SANDBOX_URL and E2B_API_KEY say where."""

from e2b_code_interpreter import Sandbox

with Sandbox.create(timeout=120) as sandbox:
    sandbox.run_code("numbers = [n * n for n in range(10)]")
    code = "print(len(numbers))\nsum(numbers)"
    execution = sandbox.run_code(code, on_stdout=lambda said: print("printed:", said.line, end=""))
    print("result:", execution.text)
    failed = sandbox.run_code("numbers[10]")
    print("error:", failed.error.name, failed.error.value)
    for line in sandbox.run_code("uname -s; ls /", language="bash").logs.stdout:
        print(line, end="")
