"""Requests made from the schema: any shape that an API's layout allows, with values that mean something here.

Owns: `VALUES`, what fields may say. Only APIs that change nothing, or whose requests only validate. Pure but for `rng`.
In flexible versions a request also carries tagged fields that nobody knows, in its header and behind its body.
"""

from __future__ import annotations

import importlib
import random
from collections.abc import Callable
from typing import Any

from tests.differential.cases import T, topic_id
from zafka.transport.kafka.api_keys import ApiKey, is_flexible
from zafka.transport.kafka.layout import Field, load_api

APIS = (
    ApiKey.FETCH, ApiKey.LIST_OFFSETS, ApiKey.METADATA, ApiKey.OFFSET_FOR_LEADER_EPOCH, ApiKey.DESCRIBE_CONFIGS,
    ApiKey.DESCRIBE_TOPIC_PARTITIONS, ApiKey.DESCRIBE_CLUSTER, ApiKey.DESCRIBE_PRODUCERS, ApiKey.DESCRIBE_LOG_DIRS,
    ApiKey.LIST_TRANSACTIONS, ApiKey.DESCRIBE_TRANSACTIONS, ApiKey.LIST_CONFIG_RESOURCES, ApiKey.API_VERSIONS,
    ApiKey.CREATE_TOPICS, ApiKey.CREATE_PARTITIONS, ApiKey.DELETE_RECORDS,
)  # fmt: skip

TOPICS = ("read", "read", "idem", "cut", "mixed", "unknown")
PARTITIONS = (0, 0, 1, 7, -1)
EPOCHS = (-1, -1, 0, 1, 2**31 - 1)
SIZES = (1, 150, 400, 1_000_000)
UNKNOWN_TAGS = b"\x02\x63\x00\xe8\x07\x03abc"  # numbers 99 and 1000, which no version has

# By API and field, or by field alone; values or a function. What has no entry is drawn by its type.
VALUES: dict[str, Any] = {
    "partition": PARTITIONS, "partition_index": PARTITIONS, "partitions": PARTITIONS, "partition_indexes": PARTITIONS,
    "current_leader_epoch": EPOCHS, "leader_epoch": EPOCHS, "last_fetched_epoch": EPOCHS,
    "fetch_offset": (0, 3, 4, 15, 16, 17, -1, 2**40), "log_start_offset": (-1,), "partition_max_bytes": (170, 400, 1_000_000),
    "max_bytes": SIZES, "max_wait_ms": (0, 5), "min_bytes": (0, 1), "isolation_level": (0, 1),
    "session_id": (0,), "session_epoch": (-1, -1, 0), "replica_id": (-1,), "rack_id": ("", "r"), "cluster_id": (None,),
    "replica_directory_id": (bytes(16),), "high_watermark": (2**63 - 1,), "forgotten_topics_data": ([],),
    "timestamp": (-1, -2, -3, -4, -5, 0, T, T + 1000, T + 10_500, T + 80_000, T + 10**9), "timeout_ms": (30_000,),
    "DescribeConfigs.resource_type": (2, 2, 2, 2, 77), "DescribeConfigs.resource_name": ("read", "mixed", "unknown", "1", "x"),
    "configuration_keys": (["retention.ms"], ["cleanup.policy", "no.such"], ["segment.bytes", "max.message.bytes"]),
    "include_documentation": (False,), "include_synonyms": (False,), "allow_auto_topic_creation": (False,),
    "endpoint_type": (1,), "response_partition_limit": (1, 2, 3, 2000), "Cursor.topic_name": TOPICS,
    "producer_id_filters": (0, 1, -1), "state_filters": ("Ongoing", "Empty", "NoSuch"), "duration_filter": (-1, 0, 1000),
    "transactional_id_pattern": (None, "", "a.*"), "transactional_ids": ("a", "b"), "resource_types": (2, 4, 8, 16, 32, 9),
    "client_software_name": ("a", "b.c", "", "-"), "client_software_version": ("1", "2.0-x", ""),
    "validate_only": (True,), "assignments": ([],), "num_partitions": (-1, 0, 1, 3, -7), "replication_factor": (-1, 0, 1, 2),
    "count": (0, 1, 2, 3, 4, -1), "DeleteRecords.offset": (0, 1, 2), "DeleteRecords.partition_index": (0, 7),
    "DeleteRecords.name": ("cut", "unknown"), "CreateTopics.configs": ([],), "CreateTopics.name": ("valid", "other", "read", "a b"),
}  # fmt: skip
CREATES_UNTIL = 4  # before, Metadata cannot be told not to create a topic
UNIQUE = ("name", "topic", "partition", "partition_index", "resource_name")


def generate(key: ApiKey, version: int, rng: random.Random) -> Any:
    """A request of this version, as a struct with places for what each side has its own of."""
    layout = load_api(key).request
    return _struct(key, layout.struct, layout.fields, version, rng)


def tags_of(key: ApiKey, version: int) -> bytes:
    """What to send in place of an empty set of tags behind a body, or b"": some versions have tags of their own there."""
    fields = load_api(key).request.fields
    own = any(field.tag is not None and field.exists_in(version) for field in fields)
    return UNKNOWN_TAGS if is_flexible(key, version) and not own else b""


def _struct(key: ApiKey, name: str, fields: tuple[Field, ...], version: int, rng: random.Random) -> Any:
    made = getattr(importlib.import_module(f"zafka.transport.kafka.messages.{key.name.lower()}"), name)()
    for field in fields:
        if field.exists_in(version) and field.name != "replica_state":
            setattr(made, field.name, _value(key, field, version, rng))
    if name == "FetchTopic":
        made.topic = made.topic or rng.choice(TOPICS)  # where there are only ids
        made.topic_id = topic_id(made.topic)
    if name == "MetadataRequestTopic" and version < CREATES_UNTIL:
        made.name = "read" if made.name == "unknown" else made.name
    return made


def _value(key: ApiKey, field: Field, version: int, rng: random.Random) -> Any:
    api = load_api(key).name
    if field.is_nullable_in(version) and rng.random() < 0.15 and field.name not in ("name", "resource_name"):
        return None
    values = VALUES.get(f"{api}.{field.name}", VALUES.get(field.name))
    if field.array and values and isinstance(values[0], list):
        return rng.choice(values)
    if not field.array:
        return _element(key, field, values, version, rng)
    elements: dict[Any, Any] = {}
    # No topics are all topics to DescribeTopicPartitions, with Kafka's internal ones in the first page.
    least = 1 if api == "DescribeTopicPartitions" else 0
    for number in range(rng.randrange(least, 4)):
        element = _element(key, field, values, version, rng)
        place = [getattr(element, name) for name in UNIQUE if hasattr(element, name)] if field.type == "struct" else element
        elements.setdefault(str(place) if place != [] else number, element)
    return list(elements.values())


def _element(key: ApiKey, field: Field, values: Any, version: int, rng: random.Random) -> Any:
    if field.type == "struct":
        return _struct(key, field.struct, field.fields, version, rng)
    return rng.choice(values) if values else _BY_TYPE[field.type](rng)


_BY_TYPE: dict[str, Callable[[random.Random], Any]] = {
    "bool": lambda rng: rng.random() < 0.5,
    "string": lambda rng: rng.choice(TOPICS),
    "int8": lambda rng: rng.choice((0, 1)),
    "int16": lambda rng: rng.choice((0, 1)),
    "int32": lambda rng: rng.choice((0, 1)),
    "int64": lambda rng: rng.choice((0, 1)),
    "uuid": lambda rng: bytes(16),
}
