"""The engine on gVisor: a kernel in user space, any Linux, no virtualisation needed.

engine.py    the seam's methods, and who owns what
sandbox.py   one sandbox's processes, pipes, folder and control group, from birth to removal
image.py     the files of a snapshot
bundle.py    what the sandbox is told about itself (OCI configuration), a pure function
runsc.py     command lines of the runtime, pure
control.py   orders to a running sandbox over its socket, for releases we have tested
command.py   the same orders over the command line, for the others
release.py   which release a binary is, and how releases differ
probe.py     can this machine run it
program.py   where the binary is
facts.py     what is true of it on every machine
kind.py      how `mitos.engine.select` finds it
"""

from mitos.engine.gvisor.engine import GvisorEngine
from mitos.engine.gvisor.settings import GvisorSettings

__all__ = ["GvisorEngine", "GvisorSettings"]
