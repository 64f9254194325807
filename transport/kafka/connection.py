"""One Kafka connection over TCP: cuts the byte stream into frames, under limits, and writes frames back.

An asyncio `BufferedProtocol`, for uvloop and asyncio. Bytes arrive in a scratch buffer that all connections share; what
is complete there is copied out at once, once. A frame that is not complete gets a buffer of its own, into which the
kernel then writes straight: a slice of the arena (`transport/arena.py`) if there is one and it has room; else a small
buffer until it has paid for the large one, so that announcing much gets nobody much.

Frame on the wire: int32 length, big-endian, then that many bytes.
Invariant: `on_open` once, then `on_frame` in the order of the bytes, then `on_close` once, and nothing after it.
"""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import Iterable, Sequence
from enum import IntFlag
from struct import Struct
from typing import TYPE_CHECKING, cast

from zafka.transport.arena import Slice
from zafka.transport.kafka.types import Buffer

if TYPE_CHECKING:
    from zafka.transport.kafka.listener import Listener

_LENGTH = Struct(">i")
# The buffer of an unfinished frame has this size until it is full, so that announcing much costs us little; then the
# frame's own, at once: measured with 1 MiB frames, growing in steps halves the throughput.
FIRST_PIECE_BYTES = 1 << 17
# Frames above this share a budget, `Limits.large_frames_bytes_max`. Up to here a slice is taken at once: until bytes come
# it takes addresses only, no memory.
LARGE_FRAME_BYTES = 2 << 20
# Buffers below this are copied into one; above it, a buffer of its own in the write costs less than the copy.
SMALL_BUFFER_BYTES = 4096
SMALL_WRITE_BYTES = 1 << 16


class Pause(IntFlag):
    """Why a connection is not read. It is read again when no reason is left."""

    NONE = 0
    OWNER = 1  # `Listener.pause_reading`
    ANSWERS = 2  # the peer does not take its answers
    LARGE_FRAMES = 4  # too many bytes of unfinished large frames, all connections together
    DOORS_CLOSED = 8


class Connection(asyncio.BufferedProtocol):
    """frame_since_s: when the unfinished frame began; None between frames. Time in which we did not read is added.
    large_frame_bytes: what this connection holds of the budget for large frames."""

    def __init__(self, listener: Listener, listener_name: str) -> None:
        self.listener = listener
        self.listener_name = listener_name
        self.id = -1
        self.peer = ""
        self.descriptor = -1
        self.active_s = 0.0
        self.frame_since_s: float | None = None
        self.closing_since_s: float | None = None
        self.large_frame_bytes = 0
        self.frame_size = 0
        self.pauses = Pause.NONE
        self._transport: asyncio.Transport
        self._head = b""  # fewer than four bytes of a length
        self._frame: bytearray | memoryview | None = None  # of the unfinished frame, `_filled` bytes of it are there
        self._slice: Slice | None = None  # where it lies, if that is not a buffer of its own
        self._filled = 0

    def __repr__(self) -> str:
        return f"<Connection {self.id} {self.peer} pauses={self.pauses!r} frame={self._filled}/{self.frame_size}>"

    # -- called by the event loop ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        address = transport.get_extra_info("peername")
        self.peer = f"{address[0]}:{address[1]}" if isinstance(address, tuple) else str(address or "local")
        transport_socket = transport.get_extra_info("socket")
        if transport_socket is not None:
            self.descriptor = transport_socket.fileno()
            transport_socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._transport.set_write_buffer_limits(high=self.listener.limits.write_buffer_bytes_max)
        # A new connection has as long for its first frame as any other for the rest of one.
        self.active_s = self.frame_since_s = self.listener.now_s()
        self.listener.connection_opened(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._frame is None:
            return self.listener.scratch
        if self._filled == len(self._frame):
            whole = self._take_slice() or bytearray(self.frame_size)
            whole[: self._filled] = self._frame
            self._frame = whole
        return memoryview(self._frame)[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        if self.closing_since_s is not None:
            return
        self.active_s = self.listener.now_s()
        if self._frame is None:
            self._cut(nbytes)
            return
        self._filled += nbytes
        if self._filled == self.frame_size:
            self._finish_frame(self._frame)
        elif self._filled == len(self._frame) and self.frame_size > LARGE_FRAME_BYTES:
            self.listener.admit_large_frame(self)

    def eof_received(self) -> None:
        """The peer writes no more. Like Kafka we end it then; what was answered already still goes out."""
        self.closing_since_s = self.closing_since_s or self.listener.now_s()

    def pause_writing(self) -> None:
        self.pause(Pause.ANSWERS)
        self.listener.on_blocked(self.id, True)

    def resume_writing(self) -> None:
        self.active_s = self.listener.now_s()
        self.resume(Pause.ANSWERS)
        self.listener.on_blocked(self.id, False)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closing_since_s = math.inf
        self._drop_frame()
        self.listener.connection_closed(self)

    # -- frames ---------------------------------------------------------------------------------------

    def _cut(self, nbytes: int) -> None:
        """Deliver the whole frames of what lies in the scratch buffer; keep the beginning of the next one."""
        data: Buffer = self.listener.scratch[:nbytes]
        if self._head:
            data, self._head = self._head + data, b""
        end, position = len(data), 0
        stops = []
        size = -1
        while end - position >= 4:
            (size,) = _LENGTH.unpack_from(data, position)
            stop = position + 4 + size
            if not 0 <= size <= self.listener.limits.frame_bytes_max or stop > end:
                break
            stops.append(stop)
            position = stop
        # The scratch buffer is another connection's next; all that is kept is copied here, first of all.
        tail = bytes(data[position:])
        whole = memoryview(bytes(data[:position]))
        if not tail:
            self.frame_since_s = None
        elif stops or self.frame_since_s is None:
            self.frame_since_s = self.active_s
        start = 0
        for stop in stops:
            self.listener.on_frame(self.id, whole[start + 4 : stop])
            if self.closing_since_s is not None:
                return
            start = stop
        if len(tail) < 4:
            self._head = tail
        elif 0 <= size <= self.listener.limits.frame_bytes_max:
            self._begin_frame(size, tail)
        else:
            self.listener.drop(self, _bad_length(size, tail, self.listener.limits.frame_bytes_max))

    def _begin_frame(self, size: int, tail: bytes) -> None:
        self.frame_size, self._filled = size, len(tail) - 4
        at_once = self._take_slice() if size <= LARGE_FRAME_BYTES else None
        self._frame = at_once or bytearray(min(size, FIRST_PIECE_BYTES))
        self._frame[: self._filled] = memoryview(tail)[4:]

    def _take_slice(self) -> memoryview | None:
        """Room for the whole frame in the arena, if there is any."""
        arena = self.listener.arena
        self._slice = None if arena is None else arena.take(self.frame_size)
        return None if self._slice is None else self._slice.view

    def _finish_frame(self, frame: bytearray | memoryview) -> None:
        slice_, self._slice = self._slice, None
        self._frame, self.frame_since_s = None, None
        self.frame_size = self._filled = 0
        self.listener.release_large_frame(self)
        if slice_ is None:
            self.listener.on_frame(self.id, memoryview(frame))
        else:
            self.listener.on_slice(self.id, slice_)

    def _drop_frame(self) -> None:
        self._frame = None
        if self._slice is not None:
            self._slice.release()
            self._slice = None

    def write(self, frames: Iterable[Sequence[Buffer]]) -> None:
        """Each frame is its bytes in pieces, without the length; small pieces are joined, large ones go as they are."""
        if self._transport.is_closing():
            return
        self.active_s = self.listener.now_s()
        pieces: list[Buffer] = []
        total = 0
        for frame in frames:
            size = sum(map(len, frame))
            total += size
            pieces.append(_LENGTH.pack(size))
            pieces += frame
        if total <= SMALL_WRITE_BYTES:
            self._transport.write(b"".join(pieces))
        else:
            self._transport.writelines(_join_small(pieces))

    # -- reading or not, and the end ------------------------------------------------------------------

    def pause(self, reason: Pause) -> None:
        if self.closing_since_s is None and not self._transport.is_closing():
            if not self.pauses:
                self._transport.pause_reading()
            self.pauses |= reason

    def resume(self, reason: Pause) -> None:
        if self.pauses & reason and not self._transport.is_closing():
            self.pauses &= ~reason
            if not self.pauses:
                self._transport.resume_reading()

    def close(self) -> None:
        """Send what was written, then the end; throw away what still comes until the peer ends it, too.

        To close a socket that holds unread bytes would reset it, and the peer would lose our last answers.
        """
        if self.closing_since_s is None and not self._transport.is_closing():
            self.closing_since_s = self.listener.now_s()
            if self.pauses:
                self.pauses = Pause.NONE
                self._transport.resume_reading()
            self._drop_frame()
            self.listener.release_large_frame(self)
            self._transport.write_eof()

    def abort(self) -> None:
        """At once; what was written and not sent is lost."""
        self.closing_since_s = math.inf
        self._transport.abort()


def _join_small(pieces: list[Buffer]) -> list[Buffer]:
    joined: list[Buffer] = []
    small: list[Buffer] = []
    for piece in pieces:
        if len(piece) < SMALL_BUFFER_BYTES:
            small.append(piece)
            continue
        joined += (b"".join(small), piece) if small else (piece,)
        small = []
    return [*joined, b"".join(small)] if small else joined


def _bad_length(size: int, beginning: bytes, size_max: int) -> str:
    if beginning[:3] in (b"\x16\x03\x01", b"\x16\x03\x03"):
        return "it speaks TLS, this listener does not"
    if beginning[:4] in (b"GET ", b"POST", b"PUT ", b"HEAD", b"OPTI"):
        return "it speaks HTTP, this is a Kafka listener"
    return f"a frame of {size} bytes; at most {size_max} are allowed (socket.request.max.bytes)"
