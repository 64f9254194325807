"""The Kafka you can pip install: a partitioned, durable commit log of supervised actor processes.

    with zafka.Producer("tcp://localhost:9290") as producer:
        producer.send("orders", b"value", key=b"key")
    with zafka.Consumer("orders", bootstrap_servers="tcp://localhost:9290") as consumer:
        for record in consumer: ...
    with zafka.Broker(topics={"orders": 3}) as broker: ...       # a real broker, for tests and notebooks
    with zafka.actor.System() as system: ...                     # actors of your own, each in a supervised process

What is listed in `__all__` is the public API. It is imported when first used, so `import zafka` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from zafka.client.version import VERSION

__version__ = VERSION

if TYPE_CHECKING:
    from zafka import actor as actor
    from zafka.client.admin import Admin as Admin, NewTopic as NewTopic
    from zafka.client.admin_groups import GroupInfo as GroupInfo, GroupListing as GroupListing
    from zafka.client.aio import (
        AsyncAdmin as AsyncAdmin,
        AsyncConsumer as AsyncConsumer,
        AsyncDeliveries as AsyncDeliveries,
        AsyncDelivery as AsyncDelivery,
        AsyncProducer as AsyncProducer,
    )
    from zafka.client.batches import (
        Deliveries as Deliveries,
        Delivery as Delivery,
        RecordMetadata as RecordMetadata,
        Span as Span,
    )
    from zafka.client.consumer import Consumer as Consumer
    from zafka.client.errors import ZafkaError as ZafkaError
    from zafka.client.interceptors import ProducerRecord as ProducerRecord
    from zafka.client.membership import Rebalance as Rebalance
    from zafka.client.metrics import (
        ConsumerMetrics as ConsumerMetrics,
        Latency as Latency,
        ProducerMetrics as ProducerMetrics,
    )
    from zafka.client.producer import Producer as Producer
    from zafka.client.records import (
        OffsetAndMetadata as OffsetAndMetadata,
        OffsetAndTimestamp as OffsetAndTimestamp,
        Record as Record,
        TopicPartition as TopicPartition,
    )
    from zafka.testing import Broker as Broker

_MODULE_OF = {
    "Admin": "zafka.client.admin",
    "AsyncAdmin": "zafka.client.aio",
    "AsyncConsumer": "zafka.client.aio",
    "AsyncDeliveries": "zafka.client.aio",
    "AsyncDelivery": "zafka.client.aio",
    "AsyncProducer": "zafka.client.aio",
    "Broker": "zafka.testing",
    "Consumer": "zafka.client.consumer",
    "ConsumerMetrics": "zafka.client.metrics",
    "Deliveries": "zafka.client.batches",
    "Delivery": "zafka.client.batches",
    "GroupInfo": "zafka.client.admin_groups",
    "GroupListing": "zafka.client.admin_groups",
    "Latency": "zafka.client.metrics",
    "NewTopic": "zafka.client.admin",
    "OffsetAndMetadata": "zafka.client.records",
    "OffsetAndTimestamp": "zafka.client.records",
    "Producer": "zafka.client.producer",
    "ProducerMetrics": "zafka.client.metrics",
    "ProducerRecord": "zafka.client.interceptors",
    "Rebalance": "zafka.client.membership",
    "Record": "zafka.client.records",
    "RecordMetadata": "zafka.client.batches",
    "Span": "zafka.client.batches",
    "TopicPartition": "zafka.client.records",
    "ZafkaError": "zafka.client.errors",
}

__all__ = [
    "Admin", "AsyncAdmin", "AsyncConsumer", "AsyncDeliveries", "AsyncDelivery", "AsyncProducer", "Broker", "Consumer",
    "ConsumerMetrics", "Deliveries", "Delivery", "GroupInfo", "GroupListing", "Latency", "NewTopic", "OffsetAndMetadata",
    "OffsetAndTimestamp", "Producer", "ProducerMetrics", "ProducerRecord", "Rebalance", "Record", "RecordMetadata", "Span",
    "TopicPartition", "ZafkaError", "__version__", "actor",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name == "actor":
        return importlib.import_module("zafka.actor")
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'zafka' has no attribute {name!r}")
    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
