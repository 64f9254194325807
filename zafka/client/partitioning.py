"""Which partition a record goes to: as Java's producer decides, as librdkafka does, or as a user's function says.

Owns: the hashes of keys, and the sticky choice for records that no hash places. Pure, but for the user's function.
Source: Kafka Utils.murmur2, BuiltInPartitioner (KIP-480, KIP-794); librdkafka's rdkafka_msg.c.
"""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

from zafka.client.errors import ConfigError

STICKY = -1  # instead of a partition: where the sticky choice leads

# (key, all partitions, those with a leader) -> partition, as kafka-python's users know it.
PartitionFunction = Callable[[bytes | None, Sequence[int], Sequence[int]], int]

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


def crc32_partition(key: bytes, partition_count: int) -> int:
    """The partition of a key as librdkafka's default and its `consistent` decide: CRC-32, as in zlib."""
    return zlib.crc32(key) % partition_count


class Partitioner(NamedTuple):
    """How a producer places records that come without a partition.

    hash: (key, number of partitions) -> partition; None sends all keys the sticky way.
    hashes: which keys it is asked for; for others records go the sticky way.
    function: a user's, asked instead, for every record.
    """

    hash: Callable[[bytes, int], int] | None = None
    hashes_empty: bool = True
    hashes_null: bool = False
    function: PartitionFunction | None = None

    @property
    def is_sticky_without_key(self) -> bool:
        return not self.hashes_null and self.function is None

    def place(self, key: bytes | None, partition_count: int) -> int:
        """The partition of a key, or STICKY."""
        if self.hash is None or (key is None and not self.hashes_null) or (key == b"" and not self.hashes_empty):
            return STICKY
        return self.hash(key or b"", partition_count)

    def ask(self, key: bytes | None, partition_count: int, led: Sequence[int]) -> int:
        """What the user's function says. Raises ConfigError if that is no partition."""
        assert self.function is not None
        partition = self.function(key, range(partition_count), led)
        if isinstance(partition, bool) or not isinstance(partition, int) or not 0 <= partition < partition_count:
            raise ConfigError(f"the partitioner said {partition!r} for key {key!r}; there are partitions 0 to {partition_count - 1}")
        return partition


PARTITIONERS = {
    "murmur2": Partitioner(partition_of_key),
    "crc32": Partitioner(crc32_partition, hashes_empty=False),
    "consistent": Partitioner(crc32_partition, hashes_null=True),
    "sticky": Partitioner(),
}


def make_partitioner(chosen: str | PartitionFunction) -> Partitioner:
    """Raises ConfigError."""
    if callable(chosen):
        return Partitioner(function=chosen)
    if not isinstance(chosen, str) or chosen not in PARTITIONERS:
        names = ", ".join(map(repr, PARTITIONERS))
        raise ConfigError(f"partitioner must be one of {names}, or a function of key, partitions and those with a leader, not {chosen!r}")
    return PARTITIONERS[chosen]


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
