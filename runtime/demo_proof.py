"""The demo's proof that every line came through exactly once and in order, by position, content hash and count.

Owns: `Ledger`, what was sent and where each line was acknowledged to stand; `Witness`, what one reader found.
A witness believes nothing: it checks each record's offset against the acknowledgement, the line numbers of each key
one by one, the hash over all lines of each key, and that a partition's offsets follow each other without gap,
repetition or step back. Nothing is sorted or dropped.
"""

from __future__ import annotations

import hashlib
from array import array
from typing import NamedTuple

PROBLEMS_KEPT = 5


class Sent:
    """All lines of one key, in order of sending."""

    __slots__ = ("hash", "offsets", "partition")

    def __init__(self) -> None:
        self.hash = hashlib.sha256()
        self.offsets = array("q")  # acknowledged offset of line i
        self.partition = -1


class Ledger:
    def __init__(self) -> None:
        self.keys: dict[bytes, Sent] = {}
        self.lines = 0

    def send(self, key: bytes, line: bytes) -> None:
        """Called for each line, in order of sending, by whoever also sends it."""
        self.keys.setdefault(key, Sent()).hash.update(line + b"\n")
        self.lines += 1

    def acknowledge(self, key: bytes, *, partition: int, offset: int) -> None:
        """Called for each line, in order of sending."""
        sent = self.keys[key]
        if sent.partition not in (-1, partition):
            raise ValueError(f"{key!r} went to partition {sent.partition} and to {partition}")
        sent.partition = partition
        sent.offsets.append(offset)

    def acknowledged(self) -> int:
        return sum(len(sent.offsets) for sent in self.keys.values())


class Line(NamedTuple):
    """One record as a reader got it. number: the line number in its header, from 1."""

    partition: int
    offset: int
    key: bytes
    number: int
    value: bytes


class Witness:
    """Give it every record of every partition in the order in which they came, then ask for `problems`."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.records = 0
        self._next_offset: dict[int, int] = {}
        self._hashes: dict[bytes, hashlib._Hash] = {}
        self._counts: dict[bytes, int] = {}
        self._found: list[str] = []
        self._found_count = 0

    def see(self, line: Line) -> None:
        self.records += 1
        expected_offset = self._next_offset.get(line.partition, 0)
        if line.offset != expected_offset:
            self._note(f"partition {line.partition}: offset {line.offset} where {expected_offset} must come")
        self._next_offset[line.partition] = line.offset + 1
        sent = self.ledger.keys.get(line.key)
        if sent is None:
            self._note(f"partition {line.partition}, offset {line.offset}: {line.key!r} was never sent")
            return
        index = self._counts.get(line.key, 0)
        self._counts[line.key] = index + 1
        self._hashes.setdefault(line.key, hashlib.sha256()).update(line.value + b"\n")
        if line.number != index + 1:
            self._note(f"{line.key!r}: line {line.number} where line {index + 1} must come")
        elif index >= len(sent.offsets) or (line.partition, line.offset) != (sent.partition, sent.offsets[index]):
            self._note(f"{line.key!r}: line {line.number} stands at {line.partition}/{line.offset}, which is not "
                       "where it was acknowledged")

    def problems(self) -> list[str]:
        """Empty if and only if each line that was sent was acknowledged and read exactly once, in order, unchanged."""
        if self.records != self.ledger.lines:
            self._note(f"{self.records} records were read and {self.ledger.lines} lines were sent")
        for key, sent in self.ledger.keys.items():
            if self._counts.get(key, 0) != len(sent.offsets):
                self._note(f"{key!r}: {self._counts.get(key, 0)} lines were read, {len(sent.offsets)} acknowledged")
            found = self._hashes.get(key)
            if found is None or found.digest() != sent.hash.digest():
                self._note(f"{key!r}: its content's hash differs")
        more = self._found_count - len(self._found)
        return [*self._found, *([f"and {more} more"] if more else [])]

    def _note(self, problem: str) -> None:
        self._found_count += 1
        if len(self._found) < PROBLEMS_KEPT:
            self._found.append(problem)
