"""What librdkafka logs of a member: of that, what explains where it began to read.

Owns: which lines are kept: generations, commits and what became of them, offsets that were given up, asked for and begun with,
and why one was reset. They are printed when the member ends, so that pytest shows them where a case failed.
"""

from __future__ import annotations

import itertools
import logging
import re
from collections import deque
from collections.abc import Iterable

DEBUG = "cgrp,topic"  # librdkafka's words for what it is to log
KEPT = re.compile(
    r"\|(COMMIT|AUTOCOMMIT|OFFSET|OFFSETFETCH|RESET|REMOVE|LEAVE|LEAVEGROUP|JOINGROUP|SYNCGROUP|LOST|REJOIN|SESSTMOUT)\|"
    r"|\|HEARTBEAT\|.*error|\|SRVPEND\|.*Starting")
KEPT_MAX = 60
LINE_MAX = 240

_numbers = itertools.count()


def kept(lines: Iterable[str]) -> list[str]:
    """The last of them, each cut to what fits in a line or two."""
    return list(deque((line[:LINE_MAX] for line in lines if KEPT.search(line)), KEPT_MAX))


class GroupLog(logging.Handler):
    """The same of a member in this process. logger: for it alone."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: deque[str] = deque(maxlen=KEPT_MAX)
        self.logger = logging.getLogger(f"member {next(_numbers)}")
        self.logger.setLevel(logging.DEBUG)
        self.logger.propagate = False
        self.logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        facility, _, what = record.getMessage().partition(" ")
        self.lines.extend(kept([f"{record.created:.3f}|{facility}|{what}"]))
