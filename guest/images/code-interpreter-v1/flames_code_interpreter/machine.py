"""Which machine this is: another one in each clone of a snapshot, the same after a pause."""


def machine_id():
    try:
        with open("/etc/machine-id", "rb") as file:
            return file.read()
    except OSError:
        return b""
