"""The Kafka TCP listener: accepts connections on sockets that listen already, and holds the limits of all of them.

Owns: the connections (`connection.py`), their number, the shared scratch buffer, the budget of large unfinished frames,
and the sweep that ends peers that take too long. Frames are opaque: what they say is the owner's matter.
Runs in one event loop, uvloop's or asyncio's; callbacks come from inside of it and must not block.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from zafka.transport.arena import Arena, Slice
from zafka.transport.kafka.connection import Connection, Pause
from zafka.transport.kafka.types import Buffer

SCRATCH_BYTES = 1 << 16
SWEEP_INTERVAL_S = 1.0


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What peers may take of us. A peer beyond them waits, or is disconnected and told of by `on_bad_peer`.

    connections_max: all sockets together; more are closed at once.
    frame_bytes_max: Kafka's socket.request.max.bytes.
    large_frames_bytes_max: unfinished frames of more than 2 MiB, all connections together; more wait.
    write_buffer_bytes_max: a peer with more answers than this not taken is not read until it took them.
    idle_s_max: Kafka's connections.max.idle.ms: nothing came, nothing was answered, no full write buffer drained.
    frame_s_max, frame_bytes_per_s_min: a frame that has begun (and the first of a new connection) must be complete
        within frame_s_max, plus its size at this rate. Time in which we chose not to read does not count.
    close_s_max: how long a peer may take to end a connection that we close, too.
    """

    connections_max: int = 10_000
    frame_bytes_max: int = 100 << 20
    large_frames_bytes_max: int = 512 << 20
    write_buffer_bytes_max: int = 1 << 20
    idle_s_max: float = 600.0
    frame_s_max: float = 30.0
    frame_bytes_per_s_min: int = 128 << 10
    close_s_max: float = 10.0


def _ignore(*_: object) -> None:
    pass


class Listener:
    """on_open(connection id, listener name, peer address), on_frame(connection id, frame without its length),
    on_close(connection id): for every connection that was taken in. A frame stays as it is while anybody holds it.
    on_blocked(connection id, blocked): the peer leaves more than `write_buffer_bytes_max` of answers untaken, or took them.
    on_slice(connection id, slice): in place of `on_frame`, a frame that lies in the arena; its owner is to release it.
    arena: where large frames are received, if it has room.
    on_bad_peer(peer address, reason): why we ended a connection, or did not take it in.
    connection_ids: shared with other doors, so that ids are the process's own.
    """

    def __init__(
        self,
        *,
        on_open: Callable[[int, str, str], None],
        on_frame: Callable[[int, memoryview], None],
        on_close: Callable[[int], None],
        on_blocked: Callable[[int, bool], None] = _ignore,
        on_bad_peer: Callable[[str, str], None] = _ignore,
        on_slice: Callable[[int, Slice], None] = _ignore,
        arena: Arena | None = None,
        limits: Limits | None = None,
        connection_ids: Iterator[int] | None = None,
    ) -> None:
        self.on_open = on_open
        self.on_frame = on_frame
        self.on_close = on_close
        self.on_blocked = on_blocked
        self.on_bad_peer = on_bad_peer
        self.on_slice = on_slice
        self.arena = arena
        self.limits = limits or Limits()
        self.scratch = memoryview(bytearray(SCRATCH_BYTES))
        self._connection_ids = connection_ids or itertools.count(1)
        self.descriptors: set[int] = set()  # of the connections taken in; each goes before its descriptor is closed
        self._connections: dict[int, Connection] = {}
        self._servers: list[asyncio.Server] = []
        self._large_frames_bytes = 0  # sum of Connection.large_frame_bytes
        self._waiting: deque[Connection] = deque()  # paused with LARGE_FRAMES, first come first served
        self._loop = asyncio.get_running_loop()
        self._sweep: asyncio.TimerHandle | None = None
        self.now_s = self._loop.time

    def __repr__(self) -> str:
        return f"<Listener connections={len(self._connections)} large_frames_bytes={self._large_frames_bytes}>"

    # -- for the owner --------------------------------------------------------------------------------

    async def listen(self, listening: socket.socket, name: str) -> None:
        """Take in connections from a socket that is bound and listening. It is ours from now on."""
        listening.setblocking(False)
        server = await self._loop.create_server(lambda: Connection(self, name), sock=listening, backlog=1024)
        self._servers.append(server)
        if self._sweep is None:
            self._sweep_later()

    def write(self, connection_id: int, frames: Iterable[Sequence[Buffer]]) -> None:
        """Send whole frames, each given in pieces and without its length. A connection that is gone takes nothing."""
        connection = self._connections.get(connection_id)
        if connection is not None and connection.closing_since_s is None:
            connection.write(frames)

    def pause_reading(self, connection_id: int) -> None:
        """No more frames from this connection, but for those that one read has brought already (64 KiB)."""
        connection = self._connections.get(connection_id)
        if connection is not None:
            connection.pause(Pause.OWNER)

    def resume_reading(self, connection_id: int) -> None:
        connection = self._connections.get(connection_id)
        if connection is not None:
            connection.resume(Pause.OWNER)

    def close(self, connection_id: int, reason: str = "", *, at_once: bool = False) -> None:
        """Close after what was written, or at_once. With a reason, the peer is at fault. `on_close` follows."""
        connection = self._connections.get(connection_id)
        if connection is not None:
            if reason:
                self.on_bad_peer(connection.peer, reason)
            if at_once:
                connection.abort()
            else:
                connection.close()

    def close_doors(self) -> None:
        """Take in no more connections and read no more requests; answers still go out."""
        for server in self._servers:
            server.close()
        self._servers.clear()
        for connection in self._connections.values():
            connection.pause(Pause.DOORS_CLOSED)

    def close_all(self) -> None:
        """Close the doors, and every connection after what was written to it."""
        self.close_doors()
        for connection in list(self._connections.values()):
            connection.close()

    def abort_all(self) -> None:
        """The end of the listener: nothing is sent any more."""
        self.close_doors()
        if self._sweep is not None:
            self._sweep.cancel()
        for connection in list(self._connections.values()):
            connection.abort()

    # -- for connections ------------------------------------------------------------------------------

    def connection_opened(self, connection: Connection) -> None:
        if len(self._connections) >= self.limits.connections_max:
            self.on_bad_peer(connection.peer, f"there are {self.limits.connections_max} connections already")
            connection.abort()
            return
        connection.id = next(self._connection_ids)
        self._connections[connection.id] = connection
        self.descriptors.add(connection.descriptor)
        self.on_open(connection.id, connection.listener_name, connection.peer)

    def connection_closed(self, connection: Connection) -> None:
        self.release_large_frame(connection)
        if self._connections.pop(connection.id, None) is not None:
            self.descriptors.discard(connection.descriptor)
            self.on_close(connection.id)

    def drop(self, connection: Connection, reason: str) -> None:
        """End a connection whose peer does not keep to the rules, at once."""
        self.on_bad_peer(connection.peer, reason)
        connection.abort()

    def admit_large_frame(self, connection: Connection) -> None:
        """Let the frame grow to its full size, or pause its connection until it may.

        One is always admitted, whatever its size, and the sweep ends it if it does not come; so all get their turn.
        """
        if connection.large_frame_bytes:
            return
        if self._waiting or not self._has_room_for(connection):
            self._waiting.append(connection)
            connection.pause(Pause.LARGE_FRAMES)
        else:
            self._take_room(connection)

    def release_large_frame(self, connection: Connection) -> None:
        self._large_frames_bytes -= connection.large_frame_bytes
        connection.large_frame_bytes = 0
        while self._waiting and (self._waiting[0].closing_since_s is not None or self._has_room_for(self._waiting[0])):
            waiting = self._waiting.popleft()
            if waiting.closing_since_s is None:
                self._take_room(waiting)
                waiting.resume(Pause.LARGE_FRAMES)

    def _has_room_for(self, connection: Connection) -> bool:
        taken = self._large_frames_bytes
        return taken == 0 or taken + connection.frame_size <= self.limits.large_frames_bytes_max

    def _take_room(self, connection: Connection) -> None:
        connection.large_frame_bytes = connection.frame_size
        self._large_frames_bytes += connection.frame_size

    # -- peers that take too long ---------------------------------------------------------------------

    def _sweep_later(self) -> None:
        self._sweep = self._loop.call_later(SWEEP_INTERVAL_S, self._sweep_now)

    def _sweep_now(self) -> None:
        self._sweep_later()
        self.sweep(SWEEP_INTERVAL_S)

    def sweep(self, interval_s: float) -> None:
        """End the connections whose time is up. interval_s: since the last sweep."""
        now_s = self.now_s()
        for connection in list(self._connections.values()):
            if connection.frame_since_s is not None and connection.pauses & (Pause.OWNER | Pause.LARGE_FRAMES):
                connection.frame_since_s += interval_s
            overdue = _overdue(connection, self.limits, now_s)
            if overdue:
                self.drop(connection, overdue)


def _overdue(connection: Connection, limits: Limits, now_s: float) -> str:
    """Why this connection has to end now, or "". Pure."""
    if connection.closing_since_s is not None:
        late = now_s - connection.closing_since_s > limits.close_s_max
        return f"it did not end a closed connection within {limits.close_s_max:.0f} s" if late else ""
    if connection.frame_since_s is not None:
        allowed_s = limits.frame_s_max + connection.frame_size / limits.frame_bytes_per_s_min
        if now_s - connection.frame_since_s > allowed_s:
            return f"a request was not complete within {allowed_s:.0f} s"
    if now_s - connection.active_s > limits.idle_s_max:
        return f"nothing came within {limits.idle_s_max:.0f} s (connections.max.idle.ms)"
    return ""
