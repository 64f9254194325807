"""Which partition a record goes to, as Java's producer decides.

Owns: murmur2 over a key, and the sticky choice for records without a key. Pure.
Source: Kafka Utils.murmur2, BuiltInPartitioner (KIP-480, KIP-794).
"""

from __future__ import annotations

import random
import struct

_M = 0x5BD1E995
_MASK = 0xFFFFFFFF
_SEED = 0x9747B28C


def murmur2(data: bytes) -> int:
    """32-bit MurmurHash2 as Kafka uses it, unsigned."""
    length = len(data)
    h = _SEED ^ length
    whole = length & ~3
    for (k,) in _iter_u32(data[:whole]):
        k = (k * _M) & _MASK
        k ^= k >> 24
        h = ((h * _M) & _MASK) ^ ((k * _M) & _MASK)
    rest = length & 3
    if rest:
        # The last one to three bytes, little endian; Java's switch falls through the same way.
        h = ((h ^ int.from_bytes(data[whole:], "little")) * _M) & _MASK
    h ^= h >> 13
    h = (h * _M) & _MASK
    return h ^ (h >> 15)


_iter_u32 = struct.Struct("<I").iter_unpack


def partition_of_key(key: bytes, partition_count: int) -> int:
    """The partition of a key: `toPositive(murmur2(key)) % partitions`, as in Java and librdkafka's murmur2_random."""
    return (murmur2(key) & 0x7FFFFFFF) % partition_count


class StickyChoice:
    """The partition for records without a key: stay until a batch worth of bytes went there, then move on.

    Batches get full instead of thin, and over time every partition gets the same number of bytes.
    """

    def __init__(self, batch_size: int, rng: random.Random | None = None) -> None:
        self.batch_size = batch_size
        self.partition = (rng or random).randrange(1 << 30)
        self.bytes_here = 0

    def choose(self, available: tuple[int, ...]) -> int:
        """The current partition. available: partitions with a leader, or all of them if none has one; not empty."""
        return available[self.partition % len(available)]

    def on_batch_closed(self, size_bytes: int, *, full: bool) -> None:
        """A batch of the current partition was closed; move on if enough went there."""
        self.bytes_here += size_bytes
        if full or self.bytes_here >= self.batch_size:
            self.partition += 1
            self.bytes_here = 0
