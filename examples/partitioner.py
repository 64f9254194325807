"""Decide where records go. Needs a broker; python examples/partitioner.py [ADDRESS]

"murmur2" is what Java's clients do and the default, "crc32" what librdkafka's do; a function may do anything.
"""

import sys
from collections.abc import Sequence

import zafka
from zafka.client.errors import BrokerRefused

where = sys.argv[1] if len(sys.argv) > 1 else None


def vip_first(key: bytes | None, partitions: Sequence[int], led: Sequence[int]) -> int:
    """Partition 0 is for one customer only; the others share the rest."""
    if key == b"vip":
        return partitions[0]
    return partitions[1 + sum(key or b"") % (len(partitions) - 1)]


with zafka.Admin(where) as admin:
    try:
        admin.create_topic("placed", partitions=3)
    except BrokerRefused as refused:
        print(refused)

for partitioner in ("murmur2", "crc32", vip_first):
    with zafka.Producer(where, partitioner=partitioner) as producer:
        for customer in (b"vip", b"u1", b"u2"):
            print(customer.decode(), "is in partition", producer.send("placed", b"order", key=customer).result().partition)
