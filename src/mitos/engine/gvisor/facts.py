"""What is true of gVisor, of our own build and of the oldest release that the engine drives.

Every difference was seen in a sandbox: `tests/integration/test_differences.py` shows each one, on
either program, and fails where one is no longer so.
"""

from __future__ import annotations

from mitos.engine.facts import Difference, Facts, Isolation
from mitos.host.rootfs import RootKind

__all__ = ["FACTS"]


def _old(text: str) -> Difference:
    return Difference(text, is_old=True)


FACTS = Facts(
    title="gVisor",
    summary=(
        "A kernel in user space for each sandbox, on any Linux machine, without virtualisation. "
        "What runs inside makes its system calls to that kernel, never to the host's. "
        "Files are part of a sandbox's memory."
    ),
    isolation=Isolation.USER_SPACE_KERNEL,
    shares_memory=False,
    root_kinds=(RootKind.EROFS_IMAGE, RootKind.FOLDER),
    program="mitos-engine (July 2026)",
    old_program="Debian's runsc (July 2024)",
    differences=(
        Difference("`uname -r` is gVisor's own number, whatever the host runs."),
        Difference("`nproc` shows at least two CPUs; a limit of one holds all the same."),
        Difference(
            "A sandbox that passes its memory limit ends as a whole; no single process is killed."
        ),
        Difference(
            "A user inside, root too, may have as many processes and threads as the sandbox has MiB"
            " of memory, at most 1,024, and gets EAGAIN beyond; `ulimit -u` cannot be raised."
        ),
        Difference(
            "A closed TCP connection is forgotten at once: there is no TIME_WAIT.", is_new=True
        ),
        Difference(
            "`df` ignores the limit: `/` has 8 EiB, `/tmp` and `/dev/shm` half the host's memory."
        ),
        Difference(
            "Memory and CPU limits cannot be read inside: there is no `memory.max` or `memory.stat`"
            " of a control group."
        ),
        Difference(
            "`/proc/diskstats`, `/proc/vmstat`, `/proc/interrupts`, `/proc/pressure` and"
            " `/proc/self/pagemap` do not exist."
        ),
        _old("The CPU times in `/proc/stat` are zeros. Each process has its own."),
        _old("`/proc/sys/kernel/random/uuid` and `/proc/sys/kernel/pid_max` do not exist."),
        Difference(
            "`/proc/sys/kernel/random/boot_id` is the same in a template's sandboxes and all forks."
        ),
        Difference("`ss` lists no sockets (no `NETLINK_SOCK_DIAG`); `/proc/net/tcp` has them."),
        Difference("`ip neigh` fails: the table of neighbours cannot be read."),
        Difference("Raw sockets and packet sockets are refused with EPERM, to root too."),
        _old("`SO_PEERCRED` names the caller itself: a server cannot tell by it who connects."),
        _old("`pidfd_open` and `pidfd_send_signal` fail with ENOSYS."),
        _old("`open_tree`, `move_mount` and `fsopen` fail with ENOSYS."),
        Difference("`copy_file_range` fails with ENOSYS; `cp` and Go fall back to reading."),
        Difference("`openat2`, `rseq`, `futex_waitv` and `process_madvise` fail with ENOSYS."),
        Difference("`io_uring_setup` and `userfaultfd` fail with ENOSYS."),
        Difference("`keyctl`, `landlock_create_ruleset` and `mount_setattr` fail with ENOSYS."),
        Difference("`O_TMPFILE`, `SEEK_DATA` and `SEEK_HOLE` are refused."),
        Difference("File attributes (`lsattr`, `chattr`) are refused."),
        Difference(
            "`O_DIRECTORY|O_NOFOLLOW` follows a link to a folder, so Go's `os.Root` does not"
            " confine."
        ),
        _old("`ls -l` says `Bad file descriptor` of links where the root is a folder."),
        Difference(
            "Hardware watchpoints never stop a program: in gdb, `set can-use-hw-watchpoints 0`."
        ),
    ),
)
