"""A wait for one descriptor, whatever its number: `select.select` takes none above 1,023, and tests that abandon
actors, as a kill does, leave files open."""

from __future__ import annotations

import select
from typing import Protocol


class HasFileno(Protocol):
    def fileno(self) -> int: ...


def readable(what: int | HasFileno, within_s: float) -> bool:
    """Whether there is something to read, or an end, within this time."""
    poll = select.poll()
    poll.register(what, select.POLLIN)
    return bool(poll.poll(within_s * 1000))
