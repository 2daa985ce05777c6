"""Where the server's log goes, and how its lines look: a terminal, a file, or the journal."""

from __future__ import annotations

import faulthandler
import logging
import sys

from mitos.cli import settings

__all__ = ["JournalFormatter", "configure"]

_FORMAT = "level=%(levelname)s logger=%(name)s %(message)s"

_PRIORITIES = (
    (logging.CRITICAL, 2),
    (logging.ERROR, 3),
    (logging.WARNING, 4),
    (logging.INFO, 6),
)
"""Of syslog(3), by the lowest level that has it."""

_DEBUG_PRIORITY = 7


class JournalFormatter(logging.Formatter):
    """Gives every line its priority, as sd-daemon(3) has it. The journal knows the time itself."""

    def __init__(self) -> None:
        super().__init__(_FORMAT)

    def format(self, record: logging.LogRecord) -> str:
        """The record's lines."""
        level = record.levelno
        priority = next((each for least, each in _PRIORITIES if level >= least), _DEBUG_PRIORITY)
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).split("\n"))


def configure() -> None:
    """Has all that is logged go to the standard error, and what each thread did in a crash."""
    handler = logging.StreamHandler(sys.stderr)
    if settings.is_journal(2):
        handler.setFormatter(JournalFormatter())
    else:
        handler.setFormatter(logging.Formatter(f"time=%(asctime)s {_FORMAT}"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    # A watchdog that waits in vain ends us by SIGABRT: this says where we stood.
    faulthandler.enable()
