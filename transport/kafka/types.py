"""What all of the codec shares: buffers, the zero uuid, and the two errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview
Reader: TypeAlias = Callable[[memoryview, int], Any]  # (frame, position of the body) -> message
Writer: TypeAlias = Callable[[Any], list[Buffer]]  # message -> its bytes; every `records` is a chunk of its own

ZERO_UUID = bytes(16)


class MalformedMessage(ValueError):
    """Bytes from outside that are not the message they claim to be. The connection they came on is closed."""

    def __init__(self, what: str, position: int) -> None:
        super().__init__(f"{what} (at byte {position} of the frame)")
        self.what = what
        self.position = position


class UnsupportedVersion(LookupError):
    """No layout is known for this version of this API."""

    def __init__(self, api_key: int, version: int) -> None:
        super().__init__(f"no layout for API key {api_key} version {version}")
        self.api_key = api_key
        self.version = version
