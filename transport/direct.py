"""How a client hands batches straight to a partition on its own machine: a question to the door, frames to a socket.

Owns: the layouts below and the cutting of a stream into frames, for both sides. Opens nothing.
Invariant: a frame is taken by the one incarnation of the partition that it names, or by nobody.

1. Where? A message of the ZeroMQ door (`transport/door.py`) with the incarnation WHERE in its header, both ways:

| from   | body                                                                                              |
|--------|---------------------------------------------------------------------------------------------------|
| client | msgpack array [topic, partition]                                                                  |
| broker | msgpack array [topic, partition, incarnation, leader epoch, path]; path "" if there is no way now |

2. The path is a Unix socket in the run directory, which lets in who runs the cluster and nobody else. Each frame
has its length before it, in four bytes; numbers are big-endian:

| from      | frame                                                                                                       |
|-----------|-------------------------------------------------------------------------------------------------------------|
| client    | correlation id i32, incarnation i64, leader epoch i32, one batch                                            |
| partition | correlation id i32, error i16, base offset i64, log append time i64, log start offset i64, message in UTF-8 |

An answer leaves when the batch is committed, as with acks=all; answers come in no order that means anything. After an
error that lets the client try again the partition closes the connection, so that no batch that was sent behind is
taken in the place of the one that was refused.
"""

from __future__ import annotations

import os
import re
import socket
import stat
from struct import Struct as Layout
from typing import NamedTuple

import msgspec
from msgspec import Struct

from zafka.transport.door import BadDoorMessage, Buffer, DoorError

QUESTION_BYTES_MAX = 512
BATCH_BYTES_MAX = 16 << 20  # what is larger goes through the broker
MESSAGE_CHARS_MAX = 1000

RUN_DIRECTORY = re.compile(r"zafka-run-\d+-[0-9a-f]{8}")

_LENGTH = Layout(">I")
_REQUEST = Layout(">iqi")
_ANSWER = Layout(">ihqqq")
REQUEST_FRAME_MAX = _REQUEST.size + BATCH_BYTES_MAX


class BadDirectFrame(DoorError):
    """What came over the socket is not a frame of ours."""


class Where(Struct, array_like=True, frozen=True, gc=False):
    topic: str
    partition: int


class Told(Struct, array_like=True, frozen=True, gc=False):
    """The way to one incarnation of a partition that leads. path: of its socket, "" if there is none now."""

    topic: str
    partition: int
    incarnation: int = -1
    leader_epoch: int = -1
    path: str = ""


class DirectRequest(NamedTuple):
    correlation_id: int
    incarnation: int
    leader_epoch: int
    records: memoryview


class DirectAnswer(NamedTuple):
    """As Kafka's PartitionProduceResponse. error_message: "" if there is nothing to say."""

    correlation_id: int
    error_code: int
    base_offset: int
    log_append_time_ms: int
    log_start_offset: int
    error_message: str = ""


# -- where? ----------------------------------------------------------------------------------------


encode = msgspec.msgpack.Encoder().encode
_decode_where = msgspec.msgpack.Decoder(Where).decode
_decode_told = msgspec.msgpack.Decoder(Told).decode


def read_where(body: Buffer) -> Where:
    """Raises BadDoorMessage."""
    _check_size(body)
    try:
        return _decode_where(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadDoorMessage(f"unreadable question for a way: {error}") from error


def read_told(body: Buffer) -> Told:
    """Raises BadDoorMessage."""
    _check_size(body)
    try:
        return _decode_told(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadDoorMessage(f"unreadable answer about a way: {error}") from error


def _check_size(body: Buffer) -> None:
    if len(body) > QUESTION_BYTES_MAX:  # also keeps what is nested without end from the decoder, which recurses
        raise BadDoorMessage(f"{len(body)} bytes about a way; {QUESTION_BYTES_MAX} at most")


def direct_path(endpoint: str, incarnation: int) -> str:
    """Where this incarnation of a partition listens. endpoint: of any actor of the same life of `up`."""
    return f"{endpoint.removeprefix('ipc://').rpartition('/')[0]}/d{incarnation}"


def is_ours(path: str) -> bool:
    """Whether this may be the socket of a partition that runs as we do, on this machine.

    Whoever answered our question may be anybody: nothing but a socket in a run directory of our own is dialled.
    """
    directory = os.path.dirname(path)
    if not hasattr(socket, "AF_UNIX") or not RUN_DIRECTORY.fullmatch(os.path.basename(directory)):
        return False
    try:
        found = os.lstat(directory)
    except (OSError, ValueError):  # not there, or a name with a null byte
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not stat.S_IMODE(found.st_mode) & 0o077


# -- frames ----------------------------------------------------------------------------------------


def request_head(correlation_id: int, incarnation: int, leader_epoch: int) -> bytes:
    """What stands in a request's frame before the batch."""
    return _REQUEST.pack(correlation_id, incarnation, leader_epoch)


def read_request(frame: memoryview) -> DirectRequest:
    """Raises BadDirectFrame."""
    if len(frame) <= _REQUEST.size:
        raise BadDirectFrame(f"a frame of {len(frame)} bytes has no batch")
    correlation_id, incarnation, leader_epoch = _REQUEST.unpack_from(frame)
    return DirectRequest(correlation_id, incarnation, leader_epoch, frame[_REQUEST.size :])


def write_answer(answer: DirectAnswer) -> bytes:
    """The whole frame, with its length."""
    message = answer.error_message[:MESSAGE_CHARS_MAX].encode()
    return _LENGTH.pack(_ANSWER.size + len(message)) + _ANSWER.pack(*answer[:5]) + message


def read_answer(frame: memoryview) -> DirectAnswer:
    """Raises BadDirectFrame."""
    if len(frame) < _ANSWER.size:
        raise BadDirectFrame(f"an answer of {len(frame)} bytes")
    message = str(frame[_ANSWER.size :], "utf-8", "replace") if len(frame) > _ANSWER.size else ""
    correlation_id, error_code, base_offset, time_ms, start_offset = _ANSWER.unpack_from(frame)
    return DirectAnswer(correlation_id, error_code, base_offset, time_ms, start_offset, message)


class Cutter:
    """The stream of one connection, cut into frames. What it keeps is a frame that is not all there, and what the
    limit of one call left behind it."""

    __slots__ = ("_bytes_max", "_kept", "has_frame")

    def __init__(self, bytes_max: int = REQUEST_FRAME_MAX) -> None:
        self._bytes_max = bytes_max
        self._kept: bytearray | bytes = b""
        self.has_frame = False  # a whole one is kept: `cut` gives more without new bytes

    @property
    def kept_bytes(self) -> int:
        return len(self._kept)

    def cut(self, data: bytes, frames_max: int) -> list[memoryview]:
        """The frames that are whole now, in order. Raises BadDirectFrame for a length that no frame has."""
        if not self._kept:
            self._kept = data
        elif data:
            if type(self._kept) is bytes:
                self._kept = bytearray(self._kept)
            self._kept += data
        frames: list[memoryview] = []
        view, position = memoryview(self._kept), 0
        while len(frames) < frames_max:
            end = self._end_of_frame(view, position)
            if end < 0:
                break
            frames.append(view[position + _LENGTH.size : end])
            position = end
        if frames:  # they are views: what is behind them moves out of their buffer
            self._kept = bytes(view[position:])
        self.has_frame = self._end_of_frame(memoryview(self._kept), 0) >= 0
        return frames

    def _end_of_frame(self, view: memoryview, position: int) -> int:
        """Where the frame that begins here ends, -1 if it is not all there."""
        if len(view) - position < _LENGTH.size:
            return -1
        (length,) = _LENGTH.unpack_from(view, position)
        if not 0 < length <= self._bytes_max:
            raise BadDirectFrame(f"a frame of {length} bytes")
        end = position + _LENGTH.size + int(length)
        return end if end <= len(view) else -1
