"""Runs inside a sandbox: shows what is different from Linux there.

    python3 differences.py HOST_MEMORY_BYTES

Prints a JSON object: the beginning of each sentence of the engine's facts, and whether what it says
is so. `test_differences.py` starts it. Standard library only.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import platform
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
LIBC.ptrace.restype = ctypes.c_long

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
    return platform.release() == "4.4.0"


@shows("`nproc`")
def processors() -> bool:
    return os.cpu_count() == 2  # the sandbox has one


@shows("`df`")
def sizes() -> bool:
    root, temporary = os.statvfs("/"), os.statvfs("/tmp")
    share = temporary.f_blocks * temporary.f_frsize / int(sys.argv[1])
    return root.f_blocks * root.f_frsize > 7 << 60 and 0.45 < share < 0.55


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


@shows("`pidfd_open`")
def missing_calls() -> bool:
    return is_missing(434) and is_missing(NUMBERS["copy_file_range"])


@shows("`io_uring_setup`")
def more_missing_calls() -> bool:
    return all(is_missing(NUMBERS[name]) for name in ("io_uring", "userfaultfd", "bpf", "fanotify"))


@shows("`O_TMPFILE`")
def file_calls() -> bool:
    with tempfile.TemporaryFile() as file:
        file.truncate(1 << 20)
        seeks = [
            fails(errno.EINVAL, os.lseek, file.fileno(), 0, kind)
            for kind in (os.SEEK_DATA, os.SEEK_HOLE)
        ]
    return all(seeks) and fails(errno.EOPNOTSUPP, os.open, "/tmp", os.O_TMPFILE | os.O_RDWR)


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


@shows("`ls -l`")
def listed_link() -> bool:
    ended = subprocess.run(["ls", "-l", "/bin"], capture_output=True, text=True, check=False)
    return "Bad file descriptor" in ended.stderr and "/bin -> usr/bin" in ended.stdout


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


NUMBERS = (
    {"copy_file_range": 326, "io_uring": 425, "userfaultfd": 323, "bpf": 321, "fanotify": 300}
    if platform.machine() == "x86_64"
    else {"copy_file_range": 285, "io_uring": 425, "userfaultfd": 282, "bpf": 280, "fanotify": 262}
)


def holds(show: Callable[[], bool]) -> bool:
    """False also where a call fails or works that should not."""
    try:
        return show()
    except (OSError, ValueError):
        return False


print(json.dumps({sentence: holds(show) for sentence, show in SHOWS.items()}))
