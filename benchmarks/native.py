"""zafka's Python client beside confluent-kafka, on the same zafka broker, in alternating rounds on fresh topics.

    python benchmarks/native.py [--records N] [--rounds N] [--bytes N] [--mixed] [--json FILE]

Both produce with acks=all and their other defaults (ours idempotent, confluent-kafka's not), and both materialise every
consumed value as `bytes`; consuming is timed from the first record. Each client gets its fastest ways: confluent-kafka
`produce` with reports of errors only, and `produce_batch` where it has it; zafka `send` and `send_many`, through the
ZeroMQ door and by Kafka's protocol.
--mixed: lengths between half of `--bytes` and one and a half of it, instead of one length.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import confluent_kafka

import zafka

PARTITIONS = 4
GIVE_UP_S = 120.0

Way = Callable[[zafka.Broker, str, list[bytes]], float]  # broker, topic, values -> seconds


def confluent_producer(broker: zafka.Broker, failures: list[str]) -> confluent_kafka.Producer:
    return confluent_kafka.Producer({
        "bootstrap.servers": broker.bootstrap_servers, "acks": "all", "linger.ms": 5, "batch.size": 1_000_000,
        "queue.buffering.max.messages": 10_000_000, "queue.buffering.max.kbytes": 1_000_000,
        "delivery.report.only.error": True, "on_delivery": lambda error, _: failures.append(str(error)),
    })  # fmt: skip


def produce_confluent(broker: zafka.Broker, topic: str, values: list[bytes]) -> float:
    failures: list[str] = []
    producer = confluent_producer(broker, failures)
    producer.list_topics(topic, timeout=10)
    produce = producer.produce
    started_s = time.perf_counter()
    for number, value in enumerate(values):
        produce(topic, value)
        if number % 1000 == 0:
            producer.poll(0)
    left = producer.flush(GIVE_UP_S)
    elapsed_s = time.perf_counter() - started_s
    assert not left and not failures, f"{left} unacknowledged, {failures[:1]}"
    return elapsed_s


def produce_confluent_batch(broker: zafka.Broker, topic: str, values: list[bytes]) -> float:
    failures: list[str] = []
    producer = confluent_producer(broker, failures)
    producer.list_topics(topic, timeout=10)
    started_s = time.perf_counter()
    for first in range(0, len(values), 10_000):
        producer.produce_batch(topic, [{"value": value} for value in values[first : first + 10_000]])
        producer.poll(0)
    left = producer.flush(GIVE_UP_S)
    elapsed_s = time.perf_counter() - started_s
    assert not left and not failures, f"{left} unacknowledged, {failures[:1]}"
    return elapsed_s


def produce_native(door: str, many: bool) -> Way:
    def produce(broker: zafka.Broker, topic: str, values: list[bytes]) -> float:
        address = broker.zmq_bootstrap_servers if door == "zmq" else broker.bootstrap_servers
        with zafka.Producer(address) as producer:
            producer.partitions_for(topic)
            started_s = time.perf_counter()
            if many:
                producer.send_many(topic, values)
            else:
                for value in values:
                    producer.send(topic, value)
            producer.flush()
            return time.perf_counter() - started_s

    return produce


def consume_confluent(broker: zafka.Broker, topic: str, values: list[bytes]) -> float:
    consumer = confluent_kafka.Consumer({
        "bootstrap.servers": broker.bootstrap_servers, "group.id": "bench", "enable.auto.commit": False,
        "auto.offset.reset": "earliest", "fetch.max.bytes": 50_000_000, "queued.min.messages": 1_000_000,
    })  # fmt: skip
    consumer.assign([confluent_kafka.TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
    seen = total = 0
    started_s = 0.0
    while seen < len(values):
        got = [message.value() for message in consumer.consume(10_000, timeout=GIVE_UP_S)]
        started_s = started_s or time.perf_counter()
        assert got, f"nothing came any more after {seen} records"
        seen += len(got)
        total += sum(map(len, got))
    elapsed_s = time.perf_counter() - started_s
    consumer.close()
    assert total == sum(map(len, values))
    return elapsed_s


def consume_native(door: str, batches: bool) -> Way:
    def consume(broker: zafka.Broker, topic: str, values: list[bytes]) -> float:
        address = broker.zmq_bootstrap_servers if door == "zmq" else broker.bootstrap_servers
        seen = total = 0
        started_s = 0.0
        with zafka.Consumer(topic, bootstrap_servers=address, auto_offset_reset="earliest") as consumer:
            if batches:
                for batch in consumer.batches(max_records=10_000):
                    started_s = started_s or time.perf_counter()
                    got = [record.value for record in batch]
                    seen += len(got)
                    total += sum(map(len, got))  # type: ignore[arg-type]
                    if seen == len(values):
                        break
            else:
                for record in consumer:
                    started_s = started_s or time.perf_counter()
                    value = record.value
                    seen += 1
                    total += len(value)  # type: ignore[arg-type]
                    if seen == len(values):
                        break
            elapsed_s = time.perf_counter() - started_s
        assert total == sum(map(len, values))
        return elapsed_s

    return consume


PRODUCE: dict[str, Way] = {
    "confluent produce": produce_confluent,
    "zafka send, zmq": produce_native("zmq", False),
    "zafka send_many, zmq": produce_native("zmq", True),
    "zafka send, kafka": produce_native("kafka", False),
    "zafka send_many, kafka": produce_native("kafka", True),
}
if hasattr(confluent_kafka.Producer, "produce_batch"):
    PRODUCE["confluent produce_batch"] = produce_confluent_batch
CONSUME: dict[str, Way] = {
    "confluent consume": consume_confluent,
    "zafka batches, zmq": consume_native("zmq", True),
    "zafka iteration, zmq": consume_native("zmq", False),
    "zafka batches, kafka": consume_native("kafka", True),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--bytes", type=int, default=100)
    parser.add_argument("--mixed", action="store_true")
    parser.add_argument("--json")
    options = parser.parse_args()
    rng = random.Random(1)
    least, most = (options.bytes // 2, options.bytes * 3 // 2) if options.mixed else (options.bytes, options.bytes)
    source = rng.randbytes(most + 4096)
    values = [source[at : at + rng.randint(least, most)] for at in (rng.randrange(4096) for _ in range(options.records))]
    taken_s: dict[str, list[float]] = {name: [] for name in (*PRODUCE, *CONSUME)}
    with zafka.Broker(allow_faults=False) as broker, zafka.Admin(broker.zmq_bootstrap_servers) as admin:
        for number in range(-1, options.rounds):  # round -1 warms both up
            for name, way in PRODUCE.items():
                topic = f"bench-{number + 1}-{len(name)}-{list(PRODUCE).index(name)}"
                admin.create_topic(topic, PARTITIONS)
                part = values if number >= 0 else values[: len(values) // 10]
                seconds = way(broker, topic, part)
                if number >= 0:
                    taken_s[name].append(seconds)
                kept = topic
                if name != list(PRODUCE)[-1]:
                    admin.delete_topics(topic)
            for name, way in CONSUME.items():
                seconds = way(broker, kept, part)
                if number >= 0:
                    taken_s[name].append(seconds)
            admin.delete_topics(kept)
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
    report(taken_s, options)
    return 0


def report(taken_s: dict[str, list[float]], options: argparse.Namespace) -> None:
    rows: dict[str, Any] = {}
    for ways, basis in ((PRODUCE, "confluent produce"), (CONSUME, "confluent consume")):
        rates = {name: sorted(options.records / seconds for seconds in taken_s[name]) for name in ways}
        for name, rate in rates.items():
            ratio = median(rate) / median(rates[basis])
            rows[name] = {"median": median(rate), "least": rate[0], "most": rate[-1], "ratio": ratio}
            print(f"{name:24} {median(rate):>12,.0f}/s   {rate[0]:>11,.0f} to {rate[-1]:>11,.0f}   {ratio:5.2f}x")
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"options": vars(options), "rows": rows}, file, indent=1)


if __name__ == "__main__":
    sys.exit(main())
