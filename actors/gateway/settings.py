"""The broker settings that the gateway obeys, from the topology's `defaults`.

Owns: `Settings` and Kafka's names for its fields. Keys of topics are `storage/config.py`'s; the topology has
refused what is misspelled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Settings:
    """All sizes are bytes.

    request_bytes_max: one request.
    connection_bytes_max: requests and answers that one connection may have waiting before it is not read from.
    queued_bytes_max: the same, all connections together.
    partition_bytes_max: handed over to one partition and not answered; less than its mailbox lets wait.
    fetch_bytes_max: records in one answer to Fetch.
    described_partitions_max: partitions in one answer to DescribeTopicPartitions.
    fetch_sessions_max: incremental fetch sessions, a number.
    """

    auto_create_topics: bool = True
    request_bytes_max: int = 100 * MIB
    connection_bytes_max: int = 16 * MIB
    queued_bytes_max: int = 256 * MIB
    partition_bytes_max: int = 48 * MIB
    fetch_bytes_max: int = 55 * MIB
    described_partitions_max: int = 2000
    fetch_sessions_max: int = 1000


def settings_from(defaults: Mapping[str, str]) -> Settings:
    """Raises ValueError for a number that is none."""
    standard = Settings()

    def number(key: str, otherwise: int) -> int:
        return int(defaults.get(key, otherwise))

    return Settings(
        auto_create_topics=defaults.get("auto.create.topics.enable", "true").strip().lower() == "true",
        request_bytes_max=number("socket.request.max.bytes", standard.request_bytes_max),
        queued_bytes_max=number("queued.max.request.bytes", standard.queued_bytes_max),
        fetch_bytes_max=number("fetch.max.bytes", standard.fetch_bytes_max),
        described_partitions_max=number("max.request.partition.size.limit", standard.described_partitions_max),
        fetch_sessions_max=number("max.incremental.fetch.session.cache.slots", standard.fetch_sessions_max),
    )
