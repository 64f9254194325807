"""What Kafka's LogCompactionTester does, with readers that need no group: many writes of few keys, a fifth of them deletions,
while the cleaner and the partition are killed; when all is cleaned, readers see the last value of each key and nothing old.

Source: org.apache.kafka.tools.LogCompactionTester.
"""

from __future__ import annotations

import os
import random
import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition

import zafka
from zafka.actors.gateway.registry import APIS
from zafka.storage.checkpoint import Checkpoint, read_checkpoint
from zafka.storage.disk import PosixDisk
from zafka.storage.verify import verify
from zafka.transport.kafka.api_keys import ApiKey

SEED = int(os.environ.get("SEED", "0")) or random.randrange(1, 2**31)
MESSAGES, KEYS = 60_000, 400
TIMEOUT_S = 120.0
DEFAULTS = {
    "cleanup.policy": "compact", "segment.bytes": "1048576", "min.cleanable.dirty.ratio": "0.01",
    "log.cleaner.backoff.ms": "100", "delete.retention.ms": "100"}

Values = dict[str, str | None]


def test_readers_see_the_last_value_of_each_key_whoever_is_killed_meanwhile() -> None:
    print(f"SEED={SEED}")
    with zafka.Broker(["keys"], defaults=DEFAULTS) as broker:
        last = write(broker)
        directory = broker.data_dir / "broker-1" / "keys-0"
        wait_until(lambda: is_clean(directory), "the log to be cleaned", broker)
        check_readers(broker, last)
        broker.restart()
        check_readers(broker, last)
        producer = Producer({"bootstrap.servers": broker.bootstrap_servers})
        refused: list[KafkaError] = []
        producer.produce("keys", b"no key", on_delivery=lambda error, _: refused.append(error))
        assert producer.flush(TIMEOUT_S) == 0
        assert [error.code() for error in refused] == [KafkaError.INVALID_RECORD]
        verdict = verify(PosixDisk(), directory)
        assert not verdict.is_damaged and not any(segment.given_up for segment in verdict.segments)


@pytest.mark.skipif(ApiKey.JOIN_GROUP not in APIS, reason="it subscribes, which needs consumer groups")
def test_log_compaction_tester(java_tools: list[str]) -> None:
    """Kafka's own, at a size at which most of it is cleaned while it sleeps."""
    with zafka.Broker(defaults={**DEFAULTS, "cleanup.policy": "delete"}) as broker:
        done = subprocess.run(
            [*java_tools, "org.apache.kafka.tools.LogCompactionTester", "--bootstrap-server", broker.bootstrap_servers,
             "--messages", "100000", "--duplicates", "5", "--percent-deletes", "20", "--sleep", "5"],
            check=False, capture_output=True, text=True, timeout=TIMEOUT_S)
        assert done.returncode == 0, done.stdout + done.stderr[-3000:]
        assert "0 mismatches" in done.stdout and "Data verification is completed" in done.stdout


def write(broker: zafka.Broker) -> Values:
    """In order, idempotent; kills in between."""
    choices = random.Random(SEED)
    producer = Producer({
        "bootstrap.servers": broker.bootstrap_servers, "enable.idempotence": True, "linger.ms": 2,
        "message.timeout.ms": 60_000})
    failed: list[KafkaError] = []
    values: Values = {}
    for number in range(MESSAGES):
        key = f"key-{choices.randrange(KEYS)}"
        value = None if choices.random() < 0.2 else f"{number} " + "x" * choices.randrange(120)
        producer.produce("keys", key=key, value=value, on_delivery=lambda error, _: failed.append(error) if error else None)
        values[key] = value
        if number % 1000 == 0:
            producer.poll(0)
        if number % 10_000 == 5000:
            assert producer.flush(TIMEOUT_S) == 0
            kill(broker, choices.choice(("cleaner 1", "partition keys-0")))
    assert producer.flush(TIMEOUT_S) == 0 and not failed
    return {key: value for key, value in values.items() if value is not None}


def kill(broker: zafka.Broker, name: str) -> None:
    if any(actor["name"] == name and actor["pid"] for actor in broker.actors()):
        broker.kill(name)


def is_clean(directory: Path) -> bool:
    """Whether all but the active segment has been compacted."""
    checkpoint: Checkpoint | None = read_checkpoint(PosixDisk(), directory)
    assert checkpoint is not None
    *sealed, active = checkpoint.segments
    return bool(sealed) and checkpoint.cleaned_offset == active.base_offset and checkpoint.swapped < 0


def wait_until(is_so: Callable[[], bool], what: str, broker: zafka.Broker) -> None:
    end_s = time.monotonic() + TIMEOUT_S
    while not is_so():
        assert time.monotonic() < end_s, f"waited in vain for {what}\n{broker.log[-4000:]}"
        threading.Event().wait(0.02)


def check_readers(broker: zafka.Broker, expected: Values) -> None:
    pairs = list(read_with_librdkafka(broker))
    assert last_of(pairs) == expected
    assert len(pairs) < MESSAGES / 2, "all but the active segment is nearly nothing"
    with zafka.Consumer(bootstrap_servers=broker.bootstrap_servers) as consumer:
        consumer.assign([("keys", 0)])
        consumer.seek(("keys", 0), 0)
        ours = [(text(record.key) or "", text(record.value)) for record in islice(consumer, len(pairs))]
    assert ours == pairs


def text(data: bytes | None) -> str | None:
    return None if data is None else data.decode()


def last_of(pairs: Iterable[tuple[str, str | None]]) -> Values:
    return {key: value for key, value in dict(pairs).items() if value is not None}


def read_with_librdkafka(broker: zafka.Broker) -> Iterable[tuple[str, str | None]]:
    reader = Consumer({"bootstrap.servers": broker.bootstrap_servers, "group.id": "none", "enable.partition.eof": True,
                       "enable.auto.commit": False})
    reader.assign([TopicPartition("keys", 0, 0)])
    previous = -1
    try:
        while True:
            message: Message | None = reader.poll(TIMEOUT_S)
            assert message is not None
            if message.error() is not None:
                assert message.error().code() == KafkaError._PARTITION_EOF
                return
            assert message.offset() > previous
            previous = message.offset()
            yield text(message.key()) or "", text(message.value())
    finally:
        reader.close()
