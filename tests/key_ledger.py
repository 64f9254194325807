"""What was written to a compacted partition, and what readers of it may see: as `tests/history.py` for topics that keep all.

Owns: `Ledger`, fed by who writes, asked by who has read the partition from its start to its end. It knows nothing of zafka.
A compacted log may lack any record but the last of its key, and a tombstone once its time is over; what nobody may see is an
older value than one that was acknowledged before the reading began, or a record anywhere but at its offset. One that deletes
as well lacks what lies before its start.
"""

from __future__ import annotations

from dataclasses import dataclass, field

Value = bytes | None


@dataclass(slots=True)
class Write:
    """made_s: when it was handed to the client, which is before it was written. offset: -1 while nobody knows whether it is there."""

    key: bytes
    value: Value
    made_s: float
    offset: int = -1


@dataclass
class Ledger:
    """retention_s: how long a tombstone stays at least."""

    retention_s: float
    writes: dict[bytes, list[Write]] = field(default_factory=dict)

    def begin(self, key: bytes, value: Value, now_s: float) -> Write:
        """Somebody writes this; set the `offset` of what is returned when it is acknowledged."""
        write = Write(key, value, now_s)
        self.writes.setdefault(key, []).append(write)
        return write

    def last_acknowledged(self) -> dict[bytes, Write]:
        known = {key: [write for write in writes if write.offset >= 0] for key, writes in self.writes.items()}
        return {key: max(writes, key=lambda write: write.offset) for key, writes in known.items() if writes}

    def complaints(
        self, floor: dict[bytes, Write], last: dict[bytes, tuple[int, Value]], now_s: float, *, low: int = 0,
        end: int | None = None
    ) -> list[str]:
        """What is wrong with the last records of a reading.

        floor: what was acknowledged before it began. low: where the partition began when it ended. end: the offset before which
        it ended, if somebody wrote on: what is written behind it may have cleaned away what it had not come to yet.
        """
        found = []
        for key, write in floor.items():
            offset, value = last.get(key, (-1, None))
            if write.offset < low or (end is not None and self._is_written_behind(end, write)):
                continue
            if offset < 0:
                found += self._of_an_absent_one(write, now_s)
            elif offset < write.offset or (offset == write.offset and value != write.value):
                found.append(f"{key!r} is {value!r} at {offset}, {write} was acknowledged before")
        for key, (offset, value) in last.items():
            found += self.complaints_of(key, offset, value)
        return found

    def _is_written_behind(self, end: int, write: Write) -> bool:
        return any(
            each.made_s > write.made_s and (each.offset < 0 or each.offset >= end) for each in self.writes[write.key])

    def complaints_of(self, key: bytes, offset: int, value: Value) -> list[str]:
        """What is wrong with one record, wherever it comes in a reading."""
        if any(write.value == value and write.offset in (-1, offset) for write in self.writes.get(key, ())):
            return []
        return [f"{key!r} is {value!r} at {offset}, which nobody wrote there"]

    def _of_an_absent_one(self, write: Write, now_s: float) -> list[str]:
        """A deleted key may be gone, in its time; by this deletion, or by one of later."""
        later = [each for each in self.writes[write.key] if each.value is None and (each.offset < 0 or each.offset >= write.offset)]
        if not later:
            return [f"{write} is gone"]
        if all(each.offset >= 0 and now_s < each.made_s + self.retention_s for each in later):
            return [f"the tombstone {later[-1]} is gone after {now_s - later[-1].made_s:.3f} s"]
        return []
