"""The arena: what its blocks promise under any use, how long a slice lives, and what another process sees of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from zafka.transport.arena import Arena, Blocks, Offer
from zafka.transport.shared_memory import NAME, SharedArena, map_offered

SMALLEST = 64
ROOT = Path(__file__).resolve().parents[2]
NOWHERE = Offer(0, 0, 0, 0, 0)
MIB = 1 << 20


class AnyUse(RuleBasedStateMachine):
    """Blocks are taken and freed in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.size = 37 * SMALLEST + 5  # no power of two, and a rest that is no block
        self.blocks = Blocks(self.size, SMALLEST)
        self.taken: dict[int, int] = {}  # position: end

    @rule(size=st.integers(1, 40 * SMALLEST))
    def take(self, size: int) -> None:
        position = self.blocks.take(size)
        if position is None:
            # Only for want of room: an empty region holds whatever its largest block does.
            assert self.taken or size > 32 * SMALLEST
            return
        end = self.blocks.end_of(position)
        assert end - position >= size
        assert end - position < 2 * max(size, SMALLEST)
        assert position % SMALLEST == 0 and end <= self.size
        assert all(end <= start or stop <= position for start, stop in self.taken.items()), "two blocks overlap"
        self.taken[position] = end

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def free(self, data: st.DataObject) -> None:
        position = data.draw(st.sampled_from(sorted(self.taken)))
        del self.taken[position]
        self.blocks.free(position)

    @rule()
    def free_all(self) -> None:
        """Nothing leaks, and everything coalesces: the largest block is there again, and then all the rest."""
        for position in self.taken:
            self.blocks.free(position)
        self.taken.clear()
        positions = [self.blocks.take(SMALLEST << order) for order in (5, 2, 0)]
        assert None not in positions and self.blocks.take(1) is None
        for each in positions:
            assert each is not None
            self.blocks.free(each)

    @invariant()
    def counts(self) -> None:
        assert self.blocks.used == sum(end - position for position, end in self.taken.items())
        assert self.blocks.end == max(self.taken.values(), default=0)


TestAnyUse = AnyUse.TestCase


def make(size: int = 32 * SMALLEST) -> Arena:
    return Arena(bytearray(size), NOWHERE, smallest=SMALLEST)


def test_a_slice_is_free_when_its_last_holder_released_it() -> None:
    arena = make()
    slice_ = arena.take(100)
    assert slice_ is not None and len(slice_.view) == 100 and arena.used == 128
    slice_.hold()
    slice_.release()
    assert arena.used == 128
    slice_.release()
    assert arena.used == 0
    with pytest.raises(AssertionError):
        slice_.release()
    with pytest.raises(AssertionError):
        slice_.hold()


def test_what_is_small_or_has_no_room_gets_no_slice() -> None:
    arena = make(size=2 * SMALLEST)
    assert arena.take(SMALLEST - 1) is None
    first, second = arena.take(SMALLEST), arena.take(SMALLEST)
    assert first is not None and second is not None
    assert arena.take(SMALLEST) is None
    first.release()
    assert arena.take(SMALLEST) is not None


def test_the_place_of_a_piece_is_known_and_that_of_other_bytes_is_not() -> None:
    arena, other = make(), make()
    arena.take(200)
    slice_, foreign = arena.take(200), other.take(200)
    assert slice_ is not None and foreign is not None
    assert arena.place_of(slice_.view) == slice_.position
    assert arena.place_of(slice_.view[7:50]) == slice_.position + 7
    assert arena.place_of(slice_.view[7:7]) is None
    for piece in (foreign.view, b"bytes", memoryview(b"bytes"), memoryview(bytearray(200))):
        assert arena.place_of(piece) is None


def test_another_process_reads_what_lies_there_and_cannot_write() -> None:
    arena = SharedArena(MIB)
    slice_ = arena.take(100_000)
    assert slice_ is not None
    slice_.view[:] = os.urandom(50_000) * 2
    program = (
        "import sys; from zafka.transport.arena import Offer; from zafka.transport.shared_memory import map_offered\n"
        "offer = Offer(*map(int, sys.argv[1:6])); view = map_offered(offer); position = int(sys.argv[6])\n"
        "assert view.readonly; sys.stdout.buffer.write(view[position : position + 100_000])")
    numbers = [arena.offer.pid, arena.offer.fd, arena.offer.device, arena.offer.inode, arena.offer.size, slice_.position]
    read = subprocess.run([sys.executable, "-c", program, *map(str, numbers)], check=True, cwd=ROOT, capture_output=True)
    assert read.stdout == bytes(slice_.view)
    arena.close()


def test_nobody_else_is_taken_for_the_arena_that_was_offered() -> None:
    arena, other = SharedArena(MIB), SharedArena(MIB)
    offer = arena.offer
    wrong = Offer(offer.pid, other.offer.fd, offer.device, offer.inode, offer.size)
    with pytest.raises(FileNotFoundError):
        map_offered(wrong)
    arena.close()
    with pytest.raises(FileNotFoundError):
        map_offered(offer)
    other.close()


def test_memory_is_taken_as_it_is_used_and_given_back_when_nobody_needs_it() -> None:
    arena = SharedArena(16 * MIB)
    assert arena.memory_bytes == 0
    slices = [arena.take(MIB) for _ in range(8)]
    assert None not in slices and arena.memory_bytes == 0
    for slice_ in slices:
        assert slice_ is not None
        slice_.view[:] = bytes(MIB)
    assert arena.memory_bytes == 8 * MIB
    arena.trim()
    assert arena.memory_bytes == 8 * MIB  # all is in use
    kept, *rest = slices
    assert kept is not None
    for slice_ in rest:
        assert slice_ is not None
        slice_.release()
    arena.trim()
    assert arena.memory_bytes == 8 * MIB  # it was needed since the last time
    arena.trim()
    assert kept.position + MIB <= 8 * MIB and arena.memory_bytes <= kept.position + MIB
    kept.view[:] = b"x" * MIB
    kept.release()
    arena.trim()
    arena.trim()
    assert arena.memory_bytes == 0
    again = arena.take(MIB)
    assert again is not None
    again.view[:5] = b"again"
    assert bytes(again.view[:6]) == b"again\0"
    arena.close()


def test_an_arena_leaves_nothing_behind() -> None:
    def descriptors() -> int:
        return sum(NAME in os.readlink(path) for path in Path("/proc/self/fd").iterdir() if path.is_symlink())

    before = descriptors()
    arena = SharedArena(MIB)
    view = map_offered(arena.offer)
    assert descriptors() > before
    arena.close()
    del arena, view
    assert descriptors() == before
