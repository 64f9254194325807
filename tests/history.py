"""What clients saw of a log, and what does not hold of it: RELIABILITY's invariants 1 to 6 and 9, by Jepsen's names.

Owns: `History`, fed by loads, readers and simulated clients while they run, asked for `problems` at the end. It knows
nothing of zafka, so that the same check can be pointed at any broker that speaks to the same clients.
Every record's value says who sent it (`value_of`); a producer numbers its records per partition, from 0, in the
order in which it sends them. A partition is named by any string; a topic that is created again needs a new one.
Memory: about 40 bytes a record.

| kind | does not hold |
|---|---|
| lost-write | an acknowledged record is in the full read |
| misplaced | it lies at the offset that was acknowledged |
| inconsistent-offsets | one offset has one value, for every reader, for ever |
| duplicate | a record is there once |
| nonmonotonic-send | records of one producer lie in the order in which they were sent |
| G1a | a send that failed for certain is never read |
| phantom | what is read was sent, to this partition |
| poll-skip, nonmonotonic-poll | a reader gets every offset once, in order |
| watermark | log start and high watermark never go back for a client, and start <= high |
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

TOLD_MAX = 5  # of one kind in one partition; all are counted

PENDING, FAILED, UNSENT = -1, -2, -3


class Problem(NamedTuple):
    kind: str
    partition: str
    what: str


def value_of(producer: str, partition: str, sequence: int, *, padding: int = 0) -> bytes:
    """The value of a record: `producer/partition/sequence`, then `padding` bytes that are not looked at."""
    value = f"{producer}/{partition}/{sequence}".encode()
    return value + b" " + b"." * (padding - 1) if padding else value


class _Sends:
    """What became of one producer's records for one partition. outcome: by sequence; an offset if acknowledged."""

    __slots__ = ("outcome", "read_at")

    def __init__(self) -> None:
        self.outcome = array("q")
        self.read_at = array("q")  # offset in the full read, or -1


class _Partition:
    """producer, sequence: by offset, as first read; producer -1: not read yet."""

    __slots__ = ("high", "low", "producer", "sequence", "skips")

    def __init__(self) -> None:
        self.producer = array("i")
        self.sequence = array("q")
        self.low = 0
        self.high = 0
        self.skips: list[tuple[str, int, int]] = []  # reader, first and last offset that it was not given


class History:
    """Not thread-safe: a load with threads of its own hands its events over under a lock."""

    def __init__(self) -> None:
        self.acknowledged_count = 0
        self._names: list[str] = []
        self._indexes: dict[str, int] = {}
        self._once: list[bool] = []
        self._ordered: list[bool] = []
        self._sends: dict[tuple[int, str], _Sends] = {}
        self._partitions: dict[str, _Partition] = {}
        self._positions: dict[tuple[str, str], int] = {}  # by reader and partition: offset of the last record
        self._problems: list[Problem] = []
        self._counts: Counter[tuple[str, str]] = Counter()

    def __repr__(self) -> str:
        return f"<History acknowledged={self.acknowledged_count} problems={sum(self._counts.values())}>"

    # -- what happens ----------------------------------------------------------------------------

    def begin_producer(self, name: str, *, once: bool = True, ordered: bool = True) -> None:
        """once: no record of it may be there twice (idempotent, or never sent again). ordered: as they were sent."""
        assert "/" not in name and name not in self._indexes
        self._indexes[name] = len(self._names)
        self._names.append(name)
        self._once.append(once)
        self._ordered.append(ordered)

    def sent(self, producer: str, partition: str, sequence: int) -> None:
        """Handed to the client, or put on the wire: from now on it may be in the log."""
        sends = self._sends_of(self._indexes[producer], partition)
        while len(sends.outcome) <= sequence:
            sends.outcome.append(UNSENT)
            sends.read_at.append(-1)
        sends.outcome[sequence] = PENDING

    def acknowledged(self, producer: str, partition: str, sequence: int, offset: int) -> None:
        """offset: -1 if the client was not told one (acks=0: then do not call this at all)."""
        outcome = self._sends_of(self._indexes[producer], partition).outcome
        if outcome[sequence] >= 0 and outcome[sequence] != offset:
            self._tell("misplaced", partition, f"{producer} {sequence}: acknowledged at {outcome[sequence]}, then at {offset}")
        self.acknowledged_count += outcome[sequence] < 0
        outcome[sequence] = offset

    def failed(self, producer: str, partition: str, sequence: int, *, definite: bool) -> None:
        """definite: the error says that it was not written and it is not sent again; else it stays in doubt."""
        outcome = self._sends_of(self._indexes[producer], partition).outcome
        if definite and outcome[sequence] == PENDING:
            outcome[sequence] = FAILED

    def polled(self, reader: str, partition: str, offset: int, value: bytes) -> None:
        """One record as a reader gets it. After a seek, or a reset by the broker, a reader needs a new name."""
        last = self._positions.get((reader, partition))
        if last is not None and offset <= last:
            self._tell("nonmonotonic-poll", partition, f"{reader}: offset {offset} after {last}")
        elif last is not None and offset > last + 1:
            self._partition(partition).skips.append((reader, last + 1, offset - 1))
        self._positions[reader, partition] = offset
        self._note(reader, partition, offset, value)

    def watermarks(self, observer: str, partition: str, *, low: int, high: int) -> None:
        """As any client was told, in the order of telling."""
        known = self._partition(partition)
        if high < known.high or low < known.low or low > high:
            self._tell(
                "watermark", partition, f"{observer}: {low}..{high} after {known.low}..{known.high} was told")
        known.low, known.high = max(low, known.low), max(high, known.high)

    def full_read(self, partition: str, records: Iterable[tuple[int, bytes]], *, low: int = 0) -> None:
        """All records of a partition, read after every send that is to be checked. low: its log start offset."""
        known = self._partition(partition)
        for (_, where), sends in self._sends.items():
            if where == partition:
                sends.read_at = array("q", [-1]) * len(sends.outcome)
        last = low - 1
        newest: dict[int, int] = {}  # last sequence by producer
        for offset, value in records:
            if offset <= last:
                self._tell("nonmonotonic-poll", partition, f"full read: offset {offset} after {last}")
            last = offset
            sent = self._note("full read", partition, offset, value)
            if sent is None:
                continue
            producer, sequence = sent
            sends = self._sends[producer, partition]
            if sends.read_at[sequence] >= 0 and self._once[producer]:
                self._tell("duplicate", partition,
                           f"{self._names[producer]} {sequence} at {sends.read_at[sequence]} and at {offset}")
            elif self._ordered[producer] and sequence < newest.get(producer, -1):
                self._tell("nonmonotonic-send", partition,
                           f"{self._names[producer]} {sequence} at {offset}, behind {newest[producer]}")
            newest[producer] = max(sequence, newest.get(producer, -1))
            if sends.read_at[sequence] < 0 or sends.outcome[sequence] == offset:
                sends.read_at[sequence] = offset
        for (producer, where), sends in self._sends.items():
            if where == partition:
                self._check_acknowledged(producer, partition, sends, low)
        for reader, first, end in known.skips:
            skipped = [offset for offset in range(max(first, low), end + 1) if self._was_read(known, offset)]
            if skipped:
                self._tell("poll-skip", partition, f"{reader} was not given {skipped[0]} to {skipped[-1]}")

    # -- what does not hold ----------------------------------------------------------------------

    def problems(self) -> list[Problem]:
        """The first of each kind and partition, and how many more there are."""
        more = [
            Problem(kind, partition, f"... and {count - TOLD_MAX} more")
            for (kind, partition), count in self._counts.items() if count > TOLD_MAX]
        return self._problems + more

    def counts(self) -> Counter[str]:
        """How many problems of each kind."""
        total: Counter[str] = Counter()
        for (kind, _), count in self._counts.items():
            total[kind] += count
        return total

    def unresolved(self, partition: str) -> list[tuple[str, int]]:
        """(producer, sequence) of sends that are neither acknowledged nor failed."""
        return [
            (self._names[producer], sequence)
            for (producer, where), sends in self._sends.items() if where == partition
            for sequence, outcome in enumerate(sends.outcome) if outcome == PENDING]

    def _check_acknowledged(self, producer: int, partition: str, sends: _Sends, low: int) -> None:
        for sequence, (outcome, read_at) in enumerate(zip(sends.outcome, sends.read_at, strict=True)):
            if outcome < low or outcome == read_at:
                continue
            what = f"{self._names[producer]} {sequence}, acknowledged at {outcome}"
            if read_at < 0:
                self._tell("lost-write", partition, f"{what}, is not there")
            else:
                self._tell("misplaced", partition, f"{what}, is at {read_at}")

    def _note(self, reader: str, partition: str, offset: int, value: bytes) -> tuple[int, int] | None:
        """Remember what lies at an offset; (producer, sequence) if that was ever sent."""
        producer, sequence = self._read_value(partition, value)
        known = self._partition(partition)
        while len(known.producer) <= offset:
            known.producer.append(-1)
            known.sequence.append(-1)
        if known.producer[offset] < 0:
            known.producer[offset], known.sequence[offset] = producer, sequence
        elif (known.producer[offset], known.sequence[offset]) != (producer, sequence):
            before = f"{self._names[known.producer[offset]]} {known.sequence[offset]}"
            self._tell("inconsistent-offsets", partition, f"{reader}: {value[:60]!r} at {offset}, where {before} was")
        outcome = UNSENT
        if producer >= 0:
            outcomes = self._sends_of(producer, partition).outcome
            outcome = outcomes[sequence] if sequence < len(outcomes) else UNSENT
        if outcome == UNSENT:
            self._tell("phantom", partition, f"{reader}: {value[:60]!r} at {offset} was never sent")
            return None
        if outcome == FAILED:
            self._tell("G1a", partition, f"{reader}: {self._names[producer]} {sequence} at {offset}, though it failed")
        return producer, sequence

    def _read_value(self, partition: str, value: bytes) -> tuple[int, int]:
        """(producer, sequence), or -1 for the producer if that is no value of this partition."""
        name, _, rest = value.partition(b" ")[0].decode(errors="replace").partition("/")
        where, _, number = rest.rpartition("/")
        if where != partition or not number.isdecimal():
            return -1, -1
        return self._indexes.get(name, -1), int(number)

    @staticmethod
    def _was_read(known: _Partition, offset: int) -> bool:
        return offset < len(known.producer) and known.producer[offset] >= 0

    def _sends_of(self, producer: int, partition: str) -> _Sends:
        sends = self._sends.get((producer, partition))
        if sends is None:
            sends = self._sends[producer, partition] = _Sends()
        return sends

    def _partition(self, partition: str) -> _Partition:
        known = self._partitions.get(partition)
        if known is None:
            known = self._partitions[partition] = _Partition()
        return known

    def _tell(self, kind: str, partition: str, what: str) -> None:
        self._counts[kind, partition] += 1
        if self._counts[kind, partition] <= TOLD_MAX:
            self._problems.append(Problem(kind, partition, what))
