"""What `zafka doctor` finds.

Owns: `Finding`, nothing else.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Level = Literal["ok", "warning", "problem"]


class Finding(NamedTuple):
    """level "problem": something will not work; "warning": it may not be what you want."""

    level: Level
    subject: str
    text: str
