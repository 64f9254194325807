"""The shared memory of a broker, into which large requests are received, and from which partitions read their records.

Owns: `Blocks`, which says what is taken; `Slice`, where one frame lies, for as long as anybody may read it; `Arena`, the
memory of one incarnation of a broker with its slices; `Offer` and `Mapped`, by which `transport/mailbox.py` agrees with a
peer that record bytes need not travel: what travels is their place. No effects here: `transport/shared_memory.py` has
those, and makes the memory one that other processes can map, to read only.
Invariants: no two slices overlap; the bytes of a slice change no more once its frame is complete, until its last holder
has released it; only its owner's process releases. No room is no fault: who asked takes a buffer of its own.
Source: Knowlton 1965, "A fast storage allocator" (buddies).
"""

from __future__ import annotations

import ctypes
import mmap

from msgspec import Struct

Buffer = bytes | bytearray | memoryview

# Below this a batch is copied into the message: see docs/decisions/0015.
SLICE_BYTES_MIN = 32 * 1024


class Offer(Struct, array_like=True, frozen=True, tag=1004):
    """The arena of the incarnation that sends this: a file without a name, open as `fd` in process `pid`.

    device, inode: of that file, so that another process with the same id is not taken for it."""

    pid: int
    fd: int
    device: int
    inode: int
    size: int


class Mapped(Struct, array_like=True, frozen=True, tag=1005):
    """The offered arena is mapped: places in it may be sent from now on."""


class Blocks:
    """What is taken of a region of `size` bytes. A block is `smallest` bytes, doubled any number of times, and lies at a
    multiple of its own size; so each has one buddy, and two free buddies become one block again at once.

    used: bytes of the taken blocks.
    """

    def __init__(self, size: int, smallest: int = SLICE_BYTES_MIN) -> None:
        assert smallest & (smallest - 1) == 0
        self.smallest = smallest
        self.used = 0
        self._taken: dict[int, int] = {}  # by position: how often `smallest` is doubled
        self._free: list[dict[int, None]] = [{} for _ in range((size // smallest).bit_length())]  # the last is taken first
        position = 0
        for order in reversed(range(len(self._free))):
            if size - position >= smallest << order:
                self._free[order][position] = None
                position += smallest << order

    def __repr__(self) -> str:
        return f"<Blocks taken={len(self._taken)} used={self.used}>"

    def take(self, size: int) -> int | None:
        """The position of a block that holds `size` bytes; None if there is none."""
        wanted = ((size - 1) // self.smallest).bit_length() if size > 0 else 0
        for order in range(wanted, len(self._free)):
            if self._free[order]:
                break
        else:
            return None
        position, _ = self._free[order].popitem()
        while order > wanted:
            order -= 1
            self._free[order][position + (self.smallest << order)] = None
        self._taken[position] = wanted
        self.used += self.smallest << wanted
        return position

    def free(self, position: int) -> None:
        order = self._taken.pop(position)
        self.used -= self.smallest << order
        while order + 1 < len(self._free):
            buddy = position ^ (self.smallest << order)
            if buddy not in self._free[order]:
                break
            del self._free[order][buddy]
            position = min(position, buddy)
            order += 1
        self._free[order][position] = None

    def end_of(self, position: int) -> int:
        """Of the taken block that begins here."""
        return position + (self.smallest << self._taken[position])

    @property
    def end(self) -> int:
        """Behind the last taken block."""
        return max(map(self.end_of, self._taken), default=0)


class Slice:
    """Where one frame lies. Made with one holder, who fills it; free when the last has released it.

    view: exactly the bytes of the frame. holders: who may read it, in this process or in one that it was lent to.
    """

    __slots__ = ("arena", "holders", "position", "view")

    def __init__(self, arena: Arena, position: int, view: memoryview) -> None:
        self.arena = arena
        self.position = position
        self.view = view
        self.holders = 1

    def __repr__(self) -> str:
        return f"<Slice {self.position}+{len(self.view)} holders={self.holders}>"

    def hold(self) -> None:
        assert self.holders > 0
        self.holders += 1

    def release(self) -> None:
        assert self.holders > 0
        self.holders -= 1
        if not self.holders:
            self.arena.free(self)


class Arena:
    """memory: writable, and never moved. offer: how another process finds it.

    Memory is there once it is written to, and given back by `trim`.
    """

    def __init__(
        self, memory: bytearray | mmap.mmap, offer: Offer, *, smallest: int = SLICE_BYTES_MIN
    ) -> None:
        self.offer = offer
        self.blocks = Blocks(len(memory), smallest)
        self._memory = memory
        self._view = memoryview(memory)
        self._address = _address_of(self._view)
        self._touched = 0  # behind the last byte that was ever written to, and not given back
        self._reach = 0  # behind the last block that was taken since the last `trim`

    def __repr__(self) -> str:
        return f"<Arena {len(self._view)} bytes {self.blocks!r}>"

    @property
    def used(self) -> int:
        return self.blocks.used

    def take(self, size: int) -> Slice | None:
        """Room for a frame of `size` bytes; None if there is none, or if it is not worth it."""
        if size < self.blocks.smallest:
            return None
        position = self.blocks.take(size)
        if position is None:
            return None
        self._reach = max(self._reach, self.blocks.end_of(position))
        self._touched = max(self._touched, self._reach)
        return Slice(self, position, self._view[position : position + size])

    def free(self, slice_: Slice) -> None:
        """Its last holder has released it: the next frame may come here."""
        self.blocks.free(slice_.position)

    def place_of(self, piece: Buffer) -> int | None:
        """Where in this arena a piece of a slice begins; None if it is not one."""
        if type(piece) is not memoryview or piece.obj is not self._memory or not piece.nbytes:
            return None
        return _address_of(piece) - self._address

    def trim(self) -> None:
        """Give back the memory that nobody has needed since the last call."""
        keep = max(self._reach, self.blocks.end)
        if keep < self._touched:
            self.discard(keep, self._touched - keep)
            self._touched = keep
        self._reach = self.blocks.end

    def discard(self, position: int, length: int) -> None:
        """These bytes are nobody's: their memory may go."""


def _address_of(view: memoryview) -> int:
    """memoryview tells what it is a part of, and not which."""
    return ctypes.addressof(ctypes.c_char.from_buffer(view))
