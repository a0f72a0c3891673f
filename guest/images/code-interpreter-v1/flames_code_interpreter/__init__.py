"""Runs code for E2B's code interpreter clients, in kernels and shells that keep their state between calls.

`server` speaks HTTP on port 49999, `python` and `bash` run the code, `kernel_hooks` is what a Python kernel loads,
and `sandbox` and `machine` tell whose machine this is: all of it was started before it was anybody's.
"""
