"""What is true of gVisor, of the release that `install` fetches.

Every difference was seen in a sandbox: `tests/integration/test_differences.py` shows each one, and
fails for a release that no longer has it.
"""

from __future__ import annotations

from mitos.engine.facts import Facts, Isolation
from mitos.host.rootfs import RootKind

__all__ = ["FACTS"]

FACTS = Facts(
    title="gVisor",
    summary=(
        "A kernel in user space for each sandbox, on any Linux machine, without virtualisation. "
        "What runs inside makes its system calls to that kernel, never to the host's. "
        "Files are part of a sandbox's memory."
    ),
    isolation=Isolation.USER_SPACE_KERNEL,
    shares_memory=False,
    root_kinds=(RootKind.FOLDER,),
    differences=(
        "`uname -r` is 4.4.0, whatever the host runs.",
        "`nproc` shows at least two CPUs; a limit of one holds all the same.",
        "A sandbox that passes its memory limit ends as a whole; no single process is killed.",
        "`df` ignores the limit: `/` has 8 EiB, `/tmp` and `/dev/shm` half the host's memory.",
        "The CPU times in `/proc/stat` are zeros. Each process has its own.",
        "`/proc/sys/kernel/random/uuid` and `/proc/sys/kernel/pid_max` do not exist.",
        "`/proc/sys/kernel/random/boot_id` is the same in a template's sandboxes and all forks.",
        "`ss` lists no sockets (no `NETLINK_SOCK_DIAG`); `/proc/net/tcp` has them.",
        "`ip neigh` fails: the table of neighbours cannot be read.",
        "Raw sockets and packet sockets are refused with EPERM, to root too.",
        "`SO_PEERCRED` names the caller itself: a server cannot tell by it who connects.",
        "`pidfd_open` and `copy_file_range` fail with ENOSYS.",
        "`io_uring_setup`, `userfaultfd`, `bpf` and `fanotify_init` fail with ENOSYS.",
        "`O_TMPFILE`, `SEEK_DATA` and `SEEK_HOLE` are refused.",
        "`O_DIRECTORY|O_NOFOLLOW` follows a link to a folder, so Go's `os.Root` does not confine.",
        "`ls -l` of some links of the image says `Bad file descriptor`, and shows them.",
        "Hardware watchpoints never stop a program: in gdb, `set can-use-hw-watchpoints 0`.",
    ),
)
