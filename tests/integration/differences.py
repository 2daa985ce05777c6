"""Runs inside a sandbox: shows what is different from Linux there.

    python3 differences.py HOST_MEMORY_BYTES

Prints a JSON object: the beginning of each sentence of the engine's facts, and whether what it says
is so. `test_differences.py` starts it. Standard library only.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import platform
import signal
import socket
import struct
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
LIBC.ptrace.restype = ctypes.c_long

# Linux's Documentation and arch/*/entry/syscalls: those from 424 on are the same everywhere.
NUMBERS = {
    "pidfd_send_signal": 424,
    "io_uring_setup": 425,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "pidfd_open": 434,
    "openat2": 437,
    "process_madvise": 440,
    "mount_setattr": 442,
    "landlock_create_ruleset": 444,
    "futex_waitv": 449,
    **(
        {"copy_file_range": 326, "userfaultfd": 323, "bpf": 321, "fanotify_init": 300}
        | {"rseq": 334, "keyctl": 250}
        if platform.machine() == "x86_64"
        else {"copy_file_range": 285, "userfaultfd": 282, "bpf": 280, "fanotify_init": 262}
        | {"rseq": 293, "keyctl": 219}
    ),
}

SHOWS: dict[str, Callable[[], bool]] = {}


def shows(sentence: str) -> Callable[[Callable[[], bool]], Callable[[], bool]]:
    """Registers what shows a sentence, named by how it begins."""

    def register(show: Callable[[], bool]) -> Callable[[], bool]:
        SHOWS[sentence] = show
        return show

    return register


def fails(number: int, attempt: Callable[..., object], *arguments: object) -> bool:
    """True when a call fails with that error."""
    try:
        attempt(*arguments)
    except OSError as exc:
        return exc.errno == number
    return False


def is_missing(system_call: int) -> bool:
    """True when the kernel has no such system call."""
    ctypes.set_errno(0)
    return LIBC.syscall(system_call, 0, 0, 0, 0, 0, 0) == -1 and ctypes.get_errno() == errno.ENOSYS


@shows("`uname -r`")
def release() -> bool:
    return platform.release() in ("4.4.0", "4.19.0-gvisor")


@shows("`nproc`")
def processors() -> bool:
    return os.cpu_count() == 2  # the sandbox has one


@shows("`df`")
def sizes() -> bool:
    root, temporary = os.statvfs("/"), os.statvfs("/tmp")
    share = temporary.f_blocks * temporary.f_frsize / int(sys.argv[1])
    return root.f_blocks * root.f_frsize > 7 << 60 and 0.45 < share < 0.55


@shows("Memory and CPU limits")
def limits() -> bool:
    group = Path("/sys/fs/cgroup")
    names = ("memory.max", "memory.stat", "memory/memory.stat", "cpu.max", "cpu/cpu.stat")
    return not any((group / name).exists() for name in names)


@shows("`/proc/diskstats`")
def missing_tables() -> bool:
    names = ("diskstats", "vmstat", "interrupts", "pressure", "self/pagemap")
    return not any(Path("/proc", name).exists() for name in names)


@shows("The CPU times")
def processor_times() -> bool:
    first = Path("/proc/stat").read_text().splitlines()[0].split()
    return set(first[1:]) == {"0"} and sum(os.times()[:2]) > 0


@shows("`/proc/sys/kernel/random/uuid`")
def missing_files() -> bool:
    kernel = Path("/proc/sys/kernel")
    return not (kernel / "random/uuid").exists() and not (kernel / "pid_max").exists()


@shows("`ss`")
def socket_listing() -> bool:
    sock_diag = 4
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = f":{server.getsockname()[1]:04X} "
        is_listed = port in Path("/proc/net/tcp").read_text()
    attempt = (socket.AF_NETLINK, socket.SOCK_RAW, sock_diag)
    return is_listed and fails(errno.EPROTONOSUPPORT, socket.socket, *attempt)


@shows("`ip neigh`")
def neighbours() -> bool:
    request, dump, error = 30, 0x301, 2
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as route:
        route.send(struct.pack("=IHHII", 28, request, dump, 1, 0) + bytes(12))
        _, kind, _, _, _, code = struct.unpack_from("=IHHIIi", route.recv(4096))
    return kind == error and code == -errno.EOPNOTSUPP


@shows("Raw sockets")
def raw_sockets() -> bool:
    raw = (socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    packet = (socket.AF_PACKET, socket.SOCK_RAW, 0)
    return all(fails(errno.EPERM, socket.socket, *kind) for kind in (raw, packet))


@shows("`SO_PEERCRED`")
def peer() -> bool:
    """A child that becomes another user connects; the server asks who it is."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as server:
        address = f"{folder}/socket"
        server.bind(address)
        server.listen()
        Path(folder).chmod(0o755)
        Path(address).chmod(0o777)
        child = os.fork()
        if child == 0:
            os.setuid(65_534)
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(address)
                client.recv(1)
            os._exit(0)
        connection, _ = server.accept()
        with connection:
            told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        os.waitpid(child, 0)
    return struct.unpack("iII", told) == (os.getpid(), 0, 0)


def are_missing(*names: str) -> Callable[[], bool]:
    return lambda: all(is_missing(NUMBERS[name]) for name in names)


shows("`pidfd_open`")(are_missing("pidfd_open", "pidfd_send_signal"))
shows("`open_tree`")(are_missing("open_tree", "move_mount", "fsopen"))
shows("`copy_file_range`")(are_missing("copy_file_range"))
shows("`openat2`")(are_missing("openat2", "rseq", "futex_waitv", "process_madvise"))
shows("`io_uring_setup`")(are_missing("io_uring_setup", "userfaultfd"))
shows("`keyctl`")(are_missing("keyctl", "landlock_create_ruleset", "mount_setattr"))


@shows("`O_TMPFILE`")
def file_calls() -> bool:
    with tempfile.TemporaryFile() as file:
        file.truncate(1 << 20)
        seeks = [
            fails(errno.EINVAL, os.lseek, file.fileno(), 0, kind)
            for kind in (os.SEEK_DATA, os.SEEK_HOLE)
        ]
    return all(seeks) and fails(errno.EOPNOTSUPP, os.open, "/tmp", os.O_TMPFILE | os.O_RDWR)


@shows("File attributes")
def attributes() -> bool:
    get_flags = 0x8008_6601
    with tempfile.TemporaryFile() as file:
        try:
            fcntl.ioctl(file.fileno(), get_flags, bytes(8))
        except OSError:
            return True
    return False


@shows("`O_DIRECTORY|O_NOFOLLOW`")
def followed_link() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / "link"
        link.symlink_to("/usr")
        opened = os.open(link, os.O_DIRECTORY | os.O_NOFOLLOW | os.O_RDONLY)
        try:
            return Path(f"/proc/self/fd/{opened}").readlink() == Path("/usr")
        finally:
            os.close(opened)


@shows("Hardware watchpoints")
def watchpoint() -> bool:
    """A child writes to a word that its first debug register watches."""
    if platform.machine() != "x86_64":
        return True
    trace_me, poke_user, go_on, debug_registers = 0, 6, 7, 848
    enabled, on_write_of_8_bytes = 1, 0b1001 << 16
    word = ctypes.c_long(0)
    child = os.fork()
    if child == 0:
        LIBC.ptrace(trace_me, 0, None, None)
        os.kill(os.getpid(), signal.SIGSTOP)
        word.value = 1
        os._exit(0)
    os.waitpid(child, 0)
    address = ctypes.addressof(word)
    control = debug_registers + 7 * 8
    LIBC.ptrace(poke_user, child, debug_registers, address)
    is_taken = LIBC.ptrace(poke_user, child, control, enabled | on_write_of_8_bytes) == 0
    LIBC.ptrace(go_on, child, None, None)
    _, status = os.waitpid(child, 0)
    if os.WIFSTOPPED(status):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return False
    return is_taken and os.WIFEXITED(status)


def holds(show: Callable[[], bool]) -> bool:
    """False also where a call fails or works that should not."""
    try:
        return show()
    except (OSError, ValueError):
        return False


print(json.dumps({sentence: holds(show) for sentence, show in SHOWS.items()}))
