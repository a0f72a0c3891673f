"""What a sandbox reaches, as the unmodified client says it: 203.0.113.5 and .6 answer on port 8000."""

from e2b import Sandbox

from cases import case, main

ONE, OTHER = "203.0.113.5", "203.0.113.6"


def reaches(sandbox, host):
    probe = f"import socket; print(socket.create_connection(('{host}', 8000), 3).recv(99).decode(), end='')"
    command = f'python3 -c "{probe}" 2>/dev/null || echo no'
    return sandbox.commands.run(command).stdout == "reached\n"


@case
def nothing_is_reached_that_nobody_allowed():
    sandbox = Sandbox.create("base", timeout=120, allow_internet_access=False)
    assert not reaches(sandbox, ONE)
    sandbox.kill()


@case
def what_is_allowed_at_the_create_is_reached_and_nothing_else():
    sandbox = Sandbox.create("base", timeout=120, network={"allow_out": [ONE], "deny_out": ["0.0.0.0/0"]})
    assert reaches(sandbox, ONE) and not reaches(sandbox, OTHER)
    sandbox.kill()


@case
def allowing_beats_denying():
    network = {"allow_out": ["203.0.113.0/24"], "deny_out": [OTHER]}
    sandbox = Sandbox.create("base", timeout=120, network=network)
    assert reaches(sandbox, ONE) and reaches(sandbox, OTHER)
    sandbox.kill()


@case
def an_update_replaces_what_was_allowed():
    sandbox = Sandbox.create("base", timeout=120, network={"allow_out": [ONE], "deny_out": ["0.0.0.0/0"]})
    sandbox.update_network({"allow_out": [OTHER], "deny_out": ["0.0.0.0/0"]})
    assert reaches(sandbox, OTHER) and not reaches(sandbox, ONE)
    sandbox.update_network({"deny_out": ["0.0.0.0/0"]})
    assert not reaches(sandbox, OTHER)
    sandbox.kill()


if __name__ == "__main__":
    main()
