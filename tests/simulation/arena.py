"""The arena of a simulated broker: what is freed is overwritten at once, so that whoever still reads it reads garbage.

Owns: `SimulatedArena`. Small, so that it is exhausted now and then, and of small blocks, so that all requests use it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zafka.transport.arena import Arena, Offer, Slice

if TYPE_CHECKING:
    from tests.simulation.processes import Process

SMALLEST = 64
GARBAGE = b"\xa5"


class SimulatedArena(Arena):
    """owner: the broker's process, whose incarnation stands for the process id."""

    def __init__(self, owner: Process, size: int) -> None:
        self._owner = owner
        self._bytes = bytearray(size)
        super().__init__(self._bytes, Offer(owner.incarnation, 0, 0, 0, size), smallest=SMALLEST)

    def take(self, size: int) -> Slice | None:
        slice_ = super().take(size)
        self._owner.count("requests received into the arena" if slice_ else "requests that found no room in the arena")
        return slice_

    def free(self, slice_: Slice) -> None:
        slice_.view[:] = GARBAGE * len(slice_.view)
        super().free(slice_)

    def place_of(self, piece: bytes | bytearray | memoryview) -> int | None:
        position = super().place_of(piece)
        if position is not None:
            self._owner.count("record bytes lent")
        return position

    def map(self) -> memoryview:
        return memoryview(self._bytes).toreadonly()
