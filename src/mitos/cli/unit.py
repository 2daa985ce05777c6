"""The systemd units of a server: `mitos.service`, and `mitos.socket` which holds its port.

Texts from values, and the values back from a text. `installation` puts the files in place.

What the service may is taken away as far as sandboxes allow. A sandbox is started by the server,
so it inherits what systemd has set up; and it outlives the server, which systemd starts anew in
another mount namespace. So nothing here may be what a sandbox needs to stay:

KillMode=process      sandboxes, and the processes that serve them, go on when the server stops
ProtectSystem=strict  nothing but the home, /dev/shm and control groups can be written; these are
                      the host's own, the same in the namespace of each server
PrivateTmp=           only builds use /tmp, and no build outlives its server

docs/howto/service.md says what is left out, and why. SystemCallFilter= is among it: sandboxes
inherit each filter, and trap the calls of their guests with one of their own.
"""

from __future__ import annotations

import configparser
import json
import re
from dataclasses import dataclass
from pathlib import Path

from mitos.cli.listener import Place, is_loopback

__all__ = ["MARK", "SERVICE", "SOCKET", "Service", "is_ours", "read", "service_text", "socket_text"]

SERVICE = "mitos.service"
SOCKET = "mitos.socket"
MARK = "# Written by `mitos service install`; `mitos service uninstall` removes it."

_CAPABILITIES = (
    *("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID"),
    *("CAP_KILL", "CAP_MKNOD", "CAP_NET_ADMIN", "CAP_NET_BIND_SERVICE", "CAP_SETFCAP"),
    *("CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_ADMIN", "CAP_SYS_CHROOT"),
    *("CAP_SYS_NICE", "CAP_SYS_PTRACE", "CAP_SYS_RESOURCE"),
)
"""What sandboxes are made with, and packages are unpacked with when a template is built."""

_FACTS = "X-Mitos"
"""A section that systemd leaves alone: what the other commands need to know."""


@dataclass(frozen=True, slots=True)
class Service:
    """What a service runs.

    Attributes:
        program: the words that start `mitos`.
        home: the Mitos home.
        place: where the socket listens.
        api_key_file: with the key of callers; None: they need none.
        options: more of `mitos serve`.
    """

    program: tuple[str, ...]
    home: Path
    place: Place
    api_key_file: Path | None = None
    options: tuple[str, ...] = ()

    @property
    def address(self) -> str:
        """Where it listens, as systemd writes it."""
        return _joined(self.place.host, self.place.port)

    @property
    def url(self) -> str:
        """Where this machine reaches it."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.place.host, self.place.host)  # noqa: S104
        return (
            f"http://[{host}]:{self.place.port}"
            if ":" in host
            else f"http://{host}:{self.place.port}"
        )


def service_text(service: Service) -> str:
    """`mitos.service`."""
    words = [*service.program, "serve", "--home", str(service.home), "--on-stop", "leave"]
    words.append("--no-setup")  # nothing can be installed where the system cannot be written
    if service.api_key_file is not None:
        words += ["--api-key-file", str(service.api_key_file)]
    # In a command, and nowhere else, "$" begins a variable.
    command = " ".join(_quoted(word).replace("$", "$$") for word in [*words, *service.options])
    return f"""\
{MARK}
# Changes of your own go into a drop-in: systemctl edit {SERVICE}

[Unit]
Description=Mitos, sandboxes for AI agents
Documentation=https://mitos.run/docs
Requires={SOCKET}
After={SOCKET} network.target
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
ExecStart={command}
WorkingDirectory=/
Restart=always
RestartSec=1
TimeoutStartSec=90
TimeoutStopSec=300
WatchdogSec=30

# Sandboxes outlive the server.
KillMode=process
Delegate=cpu cpuacct memory pids
OOMPolicy=continue
TasksMax=infinity
LimitNOFILE=1048576

# What the server may; see docs/howto/service.md for what is left out, and why.
UMask=0077
CapabilityBoundingSet={" ".join(_CAPABILITIES)}
NoNewPrivileges=yes
ProtectSystem=strict
ReadWritePaths={_quoted(str(service.home))}
PrivateTmp=yes
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native

[Install]
WantedBy=multi-user.target
Also={SOCKET}

[{_FACTS}]
Service={_facts(service)}
"""


def socket_text(service: Service) -> str:
    """`mitos.socket`."""
    is_wildcard = service.place.host in ("0.0.0.0", "::")  # noqa: S104
    # An address of a network card may come up later than this unit.
    free = "" if is_wildcard or is_loopback(service.place.host) else "FreeBind=yes\n"
    return f"""\
{MARK}

[Unit]
Description=Mitos, the port of the server
Documentation=https://mitos.run/docs

[Socket]
ListenStream={service.address}
{free}Backlog=4096
TriggerLimitIntervalSec=0

[Install]
WantedBy=sockets.target
"""


def is_ours(text: str) -> bool:
    """True for a text that `mitos service install` has written."""
    return text.startswith(MARK)


def read(text: str) -> Service:
    """The service that the text of a `mitos.service` is for.

    Raises:
        ValueError: it is not one of ours, or was changed by hand.
    """
    parser = configparser.RawConfigParser(strict=False, delimiters="=", comment_prefixes="#")
    try:
        parser.read_string(text)
        facts = json.loads(parser[_FACTS]["Service"])
        key_file = facts["api_key_file"]
        return Service(
            program=tuple(facts["program"]),
            home=Path(facts["home"]),
            place=Place(facts["host"], int(facts["port"])),
            api_key_file=None if key_file is None else Path(key_file),
            options=tuple(facts["options"]),
        )
    except (configparser.Error, KeyError, TypeError, ValueError) as exc:
        raise ValueError(f"its section [{_FACTS}] cannot be read: {exc!r}") from exc


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _facts(service: Service) -> str:
    return json.dumps(
        {
            "program": service.program,
            "home": str(service.home),
            "host": service.place.host,
            "port": service.place.port,
            "api_key_file": service.api_key_file and str(service.api_key_file),
            "options": service.options,
        }
    )


def _quoted(word: str) -> str:
    """A word as systemd.syntax(7) reads it back.

    Raises:
        ValueError: it has a character that no unit can hold.
    """
    if not word.isprintable():
        raise ValueError(f"{word!r} has characters that a unit cannot hold")
    plain = word.replace("%", "%%")
    if re.fullmatch(r"[\w@%+=:,./-]+", word, re.ASCII):
        return plain
    escaped = plain.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
