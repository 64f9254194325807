"""What stands around a message between two actors on one machine: who sent it, and which start of whom it is for.

Owns: the layout below. Knows no messages: the type of the body is the caller's.
Invariant: an envelope names the incarnation of both ends, so that what was meant for a dead actor never
reaches its successor.

Frames of ZeroMQ, behind the routing id that ROUTER sockets add; on a stream, head and record bytes of one message (`stream.py`):
    1. msgpack array [target incarnation, source name, source incarnation, body, records, apart, number, lent]
    2. only if `apart`: the record bytes, in a frame of their own so that large ones are not copied
If they are `lent`, the record bytes do not travel: they are read where they lie, in the sender's arena.
Routing id of a DEALER: `<name>#<incarnation>`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Generic, TypeVar

import msgspec
from msgspec import Struct

from zafka.transport.arena import Mapped, Offer
from zafka.transport.link import UNNUMBERED, Broken, Pulse, Seen

Buffer = bytes | bytearray | memoryview
Body = TypeVar("Body")

NO_RECORDS = memoryview(b"")

# Up to here a copy is cheaper than a frame of its own (measured: 2 us and a wake-up of the receiver's copy=False).
INLINE_BYTES_MAX = 32 * 1024


class Envelope(Struct, Generic[Body], array_like=True, frozen=True, gc=False):
    """records: the bytes beside the body, empty if they come `apart` or are `lent`. number: on this link, see
    `transport/link.py`. lent: their position and length in the arena of the incarnation that sends this."""

    target_incarnation: int
    source: str
    source_incarnation: int
    body: Body
    records: bytes | memoryview = NO_RECORDS
    apart: bool = False
    number: int = UNNUMBERED
    lent: tuple[int, int] | None = None


class _Received(Struct, Generic[Body], array_like=True, frozen=True, gc=False):
    """The same for the decoder: records as a view of the frame instead of a copy."""

    target_incarnation: int
    source: str
    source_incarnation: int
    body: Body
    records: memoryview
    apart: bool
    number: int
    lent: tuple[int, int] | None


encode = msgspec.msgpack.Encoder().encode


def decoder(message_type: object) -> msgspec.msgpack.Decoder[_Received[object]]:
    """A decoder of envelopes whose body is one of this union of tagged structs, or of those of links and arenas."""
    bodies = message_type | Broken | Pulse | Seen | Offer | Mapped
    return msgspec.msgpack.Decoder(_Received[bodies])  # type: ignore[valid-type]


def join(records: Sequence[Buffer]) -> Buffer:
    """One buffer: the only one as it is, several copied together."""
    return records[0] if len(records) == 1 else b"".join(records)


@lru_cache(maxsize=4096)
def routing_id(name: str, incarnation: int) -> bytes:
    return f"{name}#{incarnation}".encode()
