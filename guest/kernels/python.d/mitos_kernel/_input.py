"""Stand-ins for what a cell cannot have: an answer to `input`, a shell that ignores interrupts."""

import io
import os


def no_input(prompt=""):
    """Stands in for `input`: nobody can answer."""
    raise EOFError("input() cannot be used in a cell: it has no standard input")


class ClosedInput(io.TextIOBase):
    """Stands in for `sys.stdin`. Survives `exit()`, which closes it."""

    encoding = "utf-8"

    def readable(self):
        return True

    def read(self, size=-1):
        return no_input()

    def readline(self, size=-1):
        return no_input()

    def close(self):
        pass


def system(command):
    """Stands in for `os.system`, which cannot be interrupted."""
    import subprocess

    command = os.fsdecode(command)
    process = subprocess.Popen(command, shell=True)
    try:
        code = process.wait()
    except BaseException:
        process.kill()
        process.wait()
        raise
    return code << 8 if code >= 0 else -code
