"""The root of all messages between actors, for the modules that say what messages there are."""

from __future__ import annotations

from msgspec import Struct


class Message(Struct, array_like=True, frozen=True, gc=False):
    """Root of all messages."""
