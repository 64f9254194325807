"""One partition of one Fetch: what is there to read, where it lies, and what was read.

Owns: `Part`, the steps from an offset to whole batches: `look` (is there anything?), `Locate` at the partition
where the position is not known, the slice to read, `take` of the bytes.
Positions are remembered per offset (`Route.points`), so that a sequential reader needs no question to the partition;
a remembered position is believed only if the batch that lies there begins with the wanted offset.
A reader that tells the epoch of its last record is first compared with the partition's log, in each leader epoch anew.
Source: ReplicaManager.readFromLog; KIP-74 (limits), KIP-320 (leader epochs), KIP-595 (diverging epochs), KIP-98
(isolation).
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

from zafka.actors.gateway.effects import Buffer, FileSlice, ReadFault
from zafka.actors.gateway.routes import Point, Route
from zafka.actors.messages import Locate, Located
from zafka.storage.location import is_hot
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages.fetch import EpochEndOffset, FetchPartition, PartitionData

if TYPE_CHECKING:
    from zafka.actors.gateway.fetch import LongPoll

NO_BYTES = memoryview(b"")
ATTEMPTS_MAX = 3
READ_COMMITTED = 1

# Of a record batch: base offset i64, length of what follows i32, ... last offset delta i32 at 23; 61 bytes in all.
_base_offset = Struct(">q").unpack_from
_length = Struct(">i").unpack_from
LENGTH_POSITION, DELTA_POSITION, PREFIX_SIZE, HEADER_SIZE = 8, 23, 12, 61


class Whole(NamedTuple):
    """The whole batches at the start of some bytes. next_offset: of the batch behind them, -1 if there are none."""

    size: int
    next_offset: int


def whole_batches(data: Buffer) -> Whole:
    """Where the last whole batch ends. Pure; looks at each batch's length, not at its records."""
    position, last, size = 0, -1, len(data)
    while position + HEADER_SIZE <= size:
        end = position + PREFIX_SIZE + _length(data, position + LENGTH_POSITION)[0]
        if end > size or end < position + HEADER_SIZE:
            break
        last, position = position, end
    if last < 0:
        return Whole(0, -1)
    return Whole(position, _base_offset(data, last)[0] + _length(data, last + DELTA_POSITION)[0] + 1)


class Part:
    """length: bytes that may be read now from `point`; 0 with `point` None while a `Locate` is under way.

    exact: whole batches fill `length`, and they are all there; otherwise the bytes are cut to whole batches.
    told: the partition said where, so the first batch may begin before `offset`; otherwise it is believed only if
        it begins there.
    compared_epoch: of the leader whose log was compared with the reader's, if `last_fetched_epoch` is one.
    """

    __slots__ = (
        "attempts", "compared_epoch", "cut", "done", "exact", "last_fetched_epoch", "leader_epoch", "length",
        "locating", "max_bytes", "offset", "point", "poll", "response", "route", "seen", "size", "told", "wanted")

    def __init__(self, poll: LongPoll, route: Route, response: PartitionData, asked: FetchPartition) -> None:
        self.poll = poll
        self.route = route
        self.response = response
        self.offset = asked.fetch_offset
        self.leader_epoch = max(asked.current_leader_epoch, -1)  # any below 0 means that none is known
        self.last_fetched_epoch = asked.last_fetched_epoch
        self.compared_epoch = -1
        self.max_bytes = max(1, min(asked.partition_max_bytes, poll.max_bytes))
        self.point: Point | None = None
        self.length = 0
        self.exact = False
        self.told = False
        self.cut = False  # by the request's limit: less than `length` was read
        self.wanted = 0  # bytes asked for in the read that is under way
        self.locating = False
        self.seen = route.advanced  # at the last look
        self.attempts = 0
        self.size = 0  # as `Owed`
        self.done = False

    def __repr__(self) -> str:
        return f"<Part {self.route.topic}-{self.route.partition} offset={self.offset} length={self.length}>"

    # -- is there anything? --------------------------------------------------------------------

    def look(self) -> None:
        """See what the partition shows now: an error, nothing yet, bytes at a known point, or a `Locate` to wait for."""
        if self.locating or self.response.error_code or self.response.diverging_epoch is not None:
            return
        route = self.route
        self.seen = route.advanced
        self.length = 0
        error = route.refusal or self._epoch_error()
        if error:
            self.fail(error)
            return
        advanced, response = route.advanced, self.response
        response.high_watermark = advanced.high_watermark
        response.last_stable_offset = advanced.last_stable_offset
        response.log_start_offset = advanced.log_start_offset
        committed = self.poll.isolation_level == READ_COMMITTED
        limit = advanced.last_stable_offset if committed else advanced.high_watermark
        if self.last_fetched_epoch >= 0 and self.compared_epoch != advanced.leader_epoch:
            self.locate()
        elif self.offset < advanced.log_start_offset:
            self.fail(ErrorCode.OFFSET_OUT_OF_RANGE)
        elif self.offset == limit == advanced.high_watermark:
            # The next batch will begin here, unless the log rolls before.
            end = advanced.end_position
            self._believe(Point(advanced.segment_base_offset, advanced.inode, end, hot_position=end))
        elif limit <= self.offset <= advanced.high_watermark:
            self.point = None  # not stable yet
        elif self.offset > limit or limit != advanced.high_watermark:
            self.locate()  # beyond what we know: the partition says what is right
        else:
            self._measure()

    def _epoch_error(self) -> int:
        known = self.route.advanced.leader_epoch
        if self.leader_epoch < 0 or self.leader_epoch == known:
            return 0
        return ErrorCode.FENCED_LEADER_EPOCH if self.leader_epoch < known else ErrorCode.UNKNOWN_LEADER_EPOCH

    def _measure(self) -> None:
        """There is data below the high watermark. Where, and how much of it?"""
        if self.point is None:
            self._believe(self.route.points.get(self.offset))
        point, advanced = self.point, self.route.advanced
        if point is None or point.segment_base_offset > advanced.segment_base_offset:
            self.locate()
            return
        if point.segment_base_offset < advanced.segment_base_offset:
            # All of an older segment is committed; where it ends is seen in reading.
            self.length, self.exact = self.max_bytes, False
            return
        self.length = advanced.end_position - point.position
        self.exact = self.length <= self.max_bytes
        self.length = min(self.length, self.max_bytes)

    def _believe(self, point: Point | None) -> None:
        self.point, self.told = point, False

    # -- where does it lie? --------------------------------------------------------------------

    def locate(self) -> None:
        """Ask the partition for the position of `offset`."""
        route = self.route
        if route.refusal:
            self.fail(route.refusal)
            return
        self.point, self.length = None, 0
        request_id = route.routes.new_id()
        question = Locate(
            request_id, self.offset, self.max_bytes, self.leader_epoch, self.poll.isolation_level,
            self.last_fetched_epoch)
        # A partition that is too busy to be asked has nothing for us now.
        if route.ask(question, request_id, self):
            self.compared_epoch = route.advanced.leader_epoch
            self.locating = True
            self.poll.missing += 1

    def on_answer(self, located: Located) -> None:
        if self.done:
            return
        self.locating = False
        response = self.response
        response.high_watermark = located.high_watermark
        response.last_stable_offset = located.last_stable_offset
        response.log_start_offset = located.log_start_offset
        if located.error:
            self.fail(located.error)
        elif located.diverging_epoch >= 0:
            response.diverging_epoch = EpochEndOffset(located.diverging_epoch, located.diverging_end_offset)
            response.aborted_transactions = None
        elif located.length:  # else what lies there is not known: the next batch may not be the one that is wanted
            self.point = Point(located.segment_base_offset, located.inode, located.position, located.hot_position)
            self.length, self.exact, self.told = located.length, True, True
        self.poll.on_found()

    def on_lost(self, *, handed_over: bool) -> None:
        if not self.done:
            self.locating = False
            self.fail(ErrorCode.NOT_LEADER_OR_FOLLOWER)
            self.poll.on_found()

    def again(self) -> None:
        """What was believed about the position is wrong: ask the partition, but not for ever."""
        self.route.points.pop(self.offset, None)
        self.attempts += 1
        if self.attempts < ATTEMPTS_MAX:
            self.locate()
        else:
            self.fail(ErrorCode.KAFKA_STORAGE_ERROR)

    # -- the bytes -----------------------------------------------------------------------------

    def slice(self, limit: int) -> FileSlice:
        """What to read if `limit` bytes are left for the rest of the answer."""
        point = self.point
        assert point is not None and limit > 0
        self.cut = limit < self.length
        self.wanted = min(self.length, limit)
        path = f"{self.route.directory}/{point.segment_base_offset:020d}.log"
        return FileSlice(path, point.inode, point.position, self.wanted, cold=not self._is_hot(point))

    def _is_hot(self, point: Point) -> bool:
        advanced = self.route.advanced
        return point.segment_base_offset == advanced.segment_base_offset and is_hot(
            point.position, hot_position=point.hot_position, end_position=advanced.end_position)

    def take(self, data: Buffer | ReadFault) -> bool:
        """Keep the whole batches of what was read. False: the file ends where committed bytes should be."""
        point = self.point
        assert point is not None
        if data is ReadFault.CORRUPT:
            self.fail(ErrorCode.CORRUPT_MESSAGE)
            return True
        if data is ReadFault.UNREADABLE:
            self.fail(ErrorCode.KAFKA_STORAGE_ERROR)
            return True
        if isinstance(data, ReadFault):
            self.again()
            return True
        if self.exact and len(data) < self.wanted:
            return False
        whole = whole_batches(data)
        if whole.size and not self._begins_right(data):
            self.again()
        elif whole.size:
            self.response.records = memoryview(data)[: whole.size]
            place = point._replace(position=point.position + whole.size)
            self.route.remember(whole.next_offset, place)
        elif self.cut:
            self.length = 0  # not one batch fits into what the earlier partitions left
        else:
            self.again()  # the end of an older segment, or a batch larger than what was read
        return True

    def _begins_right(self, data: Buffer) -> bool:
        """True if the first batch is the one that `offset` is in."""
        base_offset = _base_offset(data)[0]
        if self.told:
            return bool(base_offset + _length(data, DELTA_POSITION)[0] >= self.offset)
        return bool(base_offset == self.offset)

    def fail(self, error: int) -> None:
        self.length = 0
        response = self.response
        response.error_code = error
        response.high_watermark = response.last_stable_offset = response.log_start_offset = -1
        response.aborted_transactions = None
        self.poll.note_error(error, self.route.topic, response)
