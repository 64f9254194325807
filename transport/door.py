"""The framing of the ZeroMQ client door, for both sides: Kafka's requests and answers behind a small header.

Owns: what the two frames of a door message mean and which socket options both sides set. Opens nothing.
Invariant: a request runs only in the incarnation of the broker that it names, so that what a DEALER still
queued for a broker that died is never executed by its successor.

A message is exactly two frames (the broker's ROUTER sees the client's routing id before them):

| frame  | content                                                                                   |
|--------|-------------------------------------------------------------------------------------------|
| header | msgpack array [version: 1, session: u63, incarnation: i63]                                |
| body   | a Kafka request or answer from `api_key` or `correlation_id` on, without its length prefix; or empty |

| from   | incarnation        | body    | means                                                                 |
|--------|--------------------|---------|-----------------------------------------------------------------------|
| client | any                | empty   | hello: who are you? Opens the session; repeated ones change nothing   |
| client | the broker's       | request | run this                                                              |
| client | not the broker's   | request | not run; answered like a hello                                        |
| client | GOODBYE            | empty   | the session ends                                                      |
| both   | WHERE              | msgpack | where is this partition's own socket? (`transport/direct.py`)         |
| broker | its own            | empty   | answer to a hello, or: nothing was run, I am this incarnation         |
| broker | its own            | answer  | answers come in the order of a session's requests, as over TCP         |
| broker | GOODBYE            | empty   | the broker closed the session: what is outstanding gets no answer      |

A session is a random number that the client draws for each socket. The broker repeats it in all it sends, and a
client drops what carries another one.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

import msgspec
import zmq
from msgspec import Struct

DOOR_VERSION = 1
HEADER_BYTES_MAX = 64
GOODBYE = -1
WHERE = -2

# As Kafka's socket.request.max.bytes, for the one frame that may be large.
FRAME_BYTES_MAX = 100 * 1024 * 1024

Buffer = bytes | bytearray | memoryview
NOTHING = b""


class DoorError(Exception):
    """Root of what may be wrong with a door message."""


class BadDoorMessage(DoorError):
    """The frames are not a door message of a version that we speak."""


class DoorHeader(Struct, array_like=True, frozen=True, gc=False):
    version: int
    session: int
    incarnation: int


class DoorMessage(NamedTuple):
    session: int
    incarnation: int
    body: Buffer


class Arrival(Enum):
    """What a client's message asks of the broker."""

    HELLO = "hello"  # answer with `write_message(session, our incarnation)`
    REQUEST = "request"  # run it
    STALE = "stale"  # do not run it; answer like a hello
    GOODBYE = "goodbye"  # forget the session
    WHERE = "where"  # tell the way to a partition


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(DoorHeader).decode


def write_message(session: int, incarnation: int, body: Buffer = NOTHING) -> tuple[bytes, Buffer]:
    """The two frames of a message. Body: a whole Kafka frame without its length prefix, or empty."""
    return _encode(DoorHeader(DOOR_VERSION, session, incarnation)), body


def read_message(frames: Sequence[Buffer]) -> DoorMessage:
    """Take the two frames of a message apart (a ROUTER's routing id already removed).

    Raises BadDoorMessage if they are not two, or the header is not one of ours.
    """
    if len(frames) != 2:
        raise BadDoorMessage(f"a door message has 2 frames, this one has {len(frames)}")
    if len(frames[0]) > HEADER_BYTES_MAX:  # also keeps what is nested without end from the decoder, which recurses
        raise BadDoorMessage(f"a door header of {len(frames[0])} bytes; it has {HEADER_BYTES_MAX} at most")
    try:
        header = _decode(frames[0])
    except msgspec.MsgspecError as error:
        raise BadDoorMessage(f"unreadable door header: {error}") from error
    if header.version != DOOR_VERSION:
        raise BadDoorMessage(f"door version {header.version} is not supported, this side speaks {DOOR_VERSION}")
    return DoorMessage(header.session, header.incarnation, frames[1])


def judge_arrival(message: DoorMessage, incarnation: int) -> Arrival:
    """Broker's side: what to do with a client's message if we are `incarnation`."""
    if len(message.body) == 0:
        return Arrival.GOODBYE if message.incarnation == GOODBYE else Arrival.HELLO
    if message.incarnation == incarnation:
        return Arrival.REQUEST
    return Arrival.WHERE if message.incarnation == WHERE else Arrival.STALE


def set_door_options(socket: zmq.Socket[bytes], *, frame_bytes_max: int = FRAME_BYTES_MAX) -> None:
    """Options that both ends of the door set before they bind or connect.

    Heartbeats find peers that vanished without a word. The high-water marks are small because the credit that
    counts is above: in-flight requests at the client, bytes in flight per session at the broker.
    """
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.MAXMSGSIZE, frame_bytes_max)
    socket.setsockopt(zmq.SNDHWM, 1000)
    socket.setsockopt(zmq.RCVHWM, 1000)
    socket.setsockopt(zmq.HEARTBEAT_IVL, 5_000)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 30_000)
    socket.setsockopt(zmq.HEARTBEAT_TTL, 30_000)
