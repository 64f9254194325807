"""The front door of a broker, sans-IO: frames of client connections in, answers out, whichever door they came by.

Owns: `Gateway`, what the handlers of all APIs share: the connections, the routes to partitions, the link to the
coordinator, the deadlines. One file per API decides what to answer; `registry.py` lists them.
Invariant: nothing leaves in the middle of a turn. Handlers gather, `on_turn_end` sends: one message per partition,
one write per connection.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Protocol

from zafka.actors.actor import Effects, Now, SetTimer
from zafka.actors.cluster_state import ClusterState
from zafka.actors.gateway import api_versions, repeated_fetch, repeated_produce
from zafka.actors.gateway.connection import Connection, Connections, Exchange
from zafka.actors.gateway.coordinator_link import CoordinatorLink
from zafka.actors.gateway.deadlines import Deadlines
from zafka.actors.gateway.effects import (
    AnswersBlocked,
    Buffer,
    ConnectionOpened,
    FileSlice,
    FilesRead,
    ReadFiles,
    TellWay,
    WayAsked,
)
from zafka.actors.gateway.fetch_session import FetchSessions
from zafka.actors.gateway.init_producer_id import ProducerIds
from zafka.actors.gateway.metadata import Creation
from zafka.actors.gateway.registry import Served, served
from zafka.actors.gateway.routes import Routes
from zafka.actors.gateway.sequence_gaps import SequenceGaps
from zafka.actors.gateway.settings import Settings
from zafka.actors.gateway.waking import Waking
from zafka.actors.messages import Advanced, Endpoint
from zafka.transport.arena import Slice
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.codec import MalformedMessage, RequestHeader, read_request_header, response_header
from zafka.transport.kafka.errors import ErrorCode

TIMER = "deadlines"

AnswerKey = tuple[int, int, tuple[int, str | bytes, int, int]]


class FilesReader(Protocol):
    def on_files_read(self, read: FilesRead) -> None: ...


class Watcher(Protocol):
    """An answer that waits for the cluster to look as it should."""

    def on_changed(self) -> None: ...


class Gateway:
    """What all handlers share. `now` is the time of the turn that is running.

    holds_topic: true while a replica of this topic id exists here, stopped or not. served: the registry's.
    space: bytes of the volume of the data directory, in all and those that may still be used.
    """

    def __init__(
        self, *, broker_id: int, data_dir: Path, endpoints: list[Endpoint], settings: Settings,
        defaults: dict[str, str], cluster: ClusterState, now: Now,
    ) -> None:
        self.broker_id = broker_id
        self.endpoints = endpoints
        self.settings = settings
        self.defaults = defaults
        self.cluster = cluster
        self.now = now
        self.routes = Routes(data_dir, credit=settings.partition_bytes_max)
        self.coordinator = CoordinatorLink()
        self.deadlines = Deadlines()
        self.sequence_gaps = SequenceGaps()
        # Ids that no earlier start of this broker has given; in the simulation they are the seed's.
        ids = Random(f"{broker_id} {now.wall_ms} {now.monotonic_s}")
        self.fetch_sessions = FetchSessions(slots=settings.fetch_sessions_max, random=ids)
        self.connections = Connections(limit=settings.connection_bytes_max, total_limit=settings.queued_bytes_max)
        self.holds_topic: Callable[[bytes], bool] = lambda topic_id: False
        self.space: Callable[[], tuple[int, int]] = lambda: (-1, -1)
        self.served: Callable[[int, int], Served | None] = served
        self.producer_ids = ProducerIds(self)
        self.creations: dict[str, Creation] = {}  # topics that Metadata has asked for, by name
        self.waking = Waking()
        self.watchers: dict[Watcher, None] = {}
        self.last_words: Counter[int] = Counter()  # that wait for coordinators of groups, by their partitions
        self.applied = 0  # of `__cluster`: everything below is in `cluster`
        self.changed = False  # what `watchers` look at has changed in this turn
        self.stopping = False
        self.slice: Slice | None = None  # where the request lies that is being started
        self._reads: dict[int, list[FilesReader]] = {}
        self._same_reads: dict[tuple[FileSlice, ...], list[FilesReader]] = {}  # of this turn
        self.same_answers: dict[AnswerKey, tuple[Sequence[Buffer], Buffer, Advanced]] = {}  # the same, see `repeated_fetch.py`
        self._last_read = 0
        self._effects: Effects = []
        self._timer_s = float("inf")

    def __repr__(self) -> str:
        return f"<Gateway connections={len(self.connections.by_id)} held={self.connections.held}>"

    # -- mail from the shell --------------------------------------------------------------------

    def on_opened(self, opened: ConnectionOpened) -> None:
        self.connections.open(opened.connection_id, listener=opened.listener, peer=opened.peer)

    def on_frames(self, frames: Sequence[tuple[int, memoryview, Slice | None]]) -> None:
        """Requests, as they came."""
        for connection_id, frame, slice_ in frames:
            self.on_frame(connection_id, frame, slice_)

    def on_frame(self, connection_id: int, frame: memoryview, slice_: Slice | None) -> None:
        """One request: it starts now, or when what is before it allows.

        slice_: where the frame lies; we release it once whoever still needs its bytes holds it, too."""
        connection = self.connections.by_id.get(connection_id)
        if connection is None or connection.closing or self.stopping:
            if slice_ is not None:
                slice_.release()
        elif connection.waiting or not connection.takes_requests:
            connection.wait(frame, slice_)
        else:
            self._begin(connection, frame, slice_)

    def _begin(self, connection: Connection, frame: memoryview, slice_: Slice | None) -> None:
        self.slice = slice_
        self._handle(connection, frame)
        self.slice = None
        if slice_ is not None:
            slice_.release()

    def _handle(self, connection: Connection, frame: memoryview) -> None:
        """Start a request. What cannot be read ends the connection, after the answers that are due before it."""
        shape = connection.shape
        if shape is not None and repeated_produce.begin(self, connection, shape, frame):
            return
        fetch_shape = connection.fetch_shape
        if fetch_shape is not None and repeated_fetch.begin(self, connection, fetch_shape, frame):
            return
        try:
            header = read_request_header(frame)
            api = self.served(header.api_key, header.version)
            if api is None:
                self._refuse_version(connection, header)
                return
            request = api.read(frame, header.body_position)
        except MalformedMessage as error:
            self._refuse(connection, f"malformed request: {error}")
            return
        head = response_header(header.api_key, header.version, header.correlation_id)
        exchange = Exchange(
            connection, version=header.version, head=head, writer=api.write, size=len(frame), client_id=header.client_id)
        connection.begin(exchange)
        api.handle(self, exchange, request)
        if header.api_key == ApiKey.PRODUCE:
            repeated_produce.remember(connection, frame, header.version, request)
        elif header.api_key == ApiKey.FETCH:
            repeated_fetch.remember(connection, frame, header, request)

    def _refuse_version(self, connection: Connection, header: RequestHeader) -> None:
        """No such API or version here: the end of the connection, unless it asked for our versions (KIP-511)."""
        if header.api_key != ApiKey.API_VERSIONS:
            error = ErrorCode.UNSUPPORTED_VERSION.name
            self._refuse(connection, f"{error}: API key {header.api_key} version {header.version}")
            return
        head = response_header(ApiKey.API_VERSIONS, 0, header.correlation_id)
        exchange = Exchange(connection, version=0, head=head)
        connection.begin(exchange)
        exchange.answer_frame([head, *api_versions.unsupported()])

    def _refuse(self, connection: Connection, reason: str) -> None:
        """End a connection whose request gets no answer."""
        exchange = Exchange(connection, version=0)
        connection.begin(exchange)
        exchange.refuse(reason)

    def stop(self) -> None:
        """Take no more requests; long polls are answered with what is there."""
        self.stopping = True
        for connection in self.connections.by_id.values():
            connection.drop_waiting()
            for exchange in connection.exchanges:
                if exchange.operation is not None:
                    exchange.operation.on_hurry()

    def is_idle(self) -> bool:
        """True if no client waits for anything."""
        return not any(connection.exchanges for connection in self.connections.by_id.values())

    def on_blocked(self, told: AnswersBlocked) -> None:
        connection = self.connections.by_id.get(told.connection_id)
        if connection is not None:
            connection.on_blocked(told.blocked, self.now.monotonic_s)

    def on_closed(self, connection_id: int) -> None:
        self.connections.close(connection_id)

    def on_files_read(self, read: FilesRead) -> None:
        for reader in self._reads.pop(read.token):
            reader.on_files_read(read)

    def on_way_asked(self, asked: WayAsked) -> None:
        """Tell who serves this partition, if anybody does: the way there is the shell's matter."""
        route = self.routes.find(asked.topic, asked.partition)
        if route is None or route.refusal or route.peer is None:
            self._effects.append(TellWay(asked))
        else:
            self._effects.append(TellWay(asked, route.peer.incarnation, route.advanced.leader_epoch))

    # -- for handlers ---------------------------------------------------------------------------

    def read_files(self, slices: list[FileSlice], reader: FilesReader) -> None:
        """Whoever wants the same in one turn, as all who waited for one batch do, gets it from one read."""
        key = tuple(slices)
        readers = self._same_reads.get(key)
        if readers is not None:
            readers.append(reader)
            return
        self._last_read += 1
        self._reads[self._last_read] = self._same_reads[key] = [reader]
        self._effects.append(ReadFiles(self._last_read, slices))

    # -- the turn -------------------------------------------------------------------------------

    def on_turn_end(self) -> Effects:
        """Everything that was gathered in this turn."""
        self.deadlines.expire(self.now.monotonic_s)
        if self.changed:
            self.changed = False
            for watcher in list(self.watchers):
                watcher.on_changed()
        for poll in self.waking.next(self.now.monotonic_s):
            poll.on_woken()
        connections = self.connections
        answers = connections.take_answers()
        while ready := connections.ready():
            for connection in ready:
                while connection.waiting and connection.takes_requests:
                    self._begin(connection, *connection.next_waiting())
            answers += connections.take_answers()
        self._same_reads.clear()
        self.same_answers.clear()
        effects, self._effects = self._effects, []
        effects += answers  # first: partitions that get mail may take this core at once
        effects += self.routes.on_turn_end()
        effects += self.coordinator.on_turn_end()
        effects += connections.on_turn_end(self.now.monotonic_s)
        next_s = self.waking.due_s or self.deadlines.next_s
        if next_s is not None and next_s < self._timer_s:
            self._timer_s = next_s
            effects.append(SetTimer(TIMER, next_s))
        return effects

    def on_timer(self) -> None:
        """`TIMER` fired: the turn's end looks what has expired, and which long polls come next."""
        self._timer_s = float("inf")
