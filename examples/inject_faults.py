"""What a client sees of a cluster that fails in five ways: delays, and every record once.

python examples/inject_faults.py            # brings its own broker; docs/faults.md says what else there is
"""

import time

import zafka

FAULTS = {
    "the leader says three times that it is none": lambda broker: broker.inject_error(
        "PRODUCE", "orders", "NOT_LEADER_OR_FOLLOWER", times=3),
    "the partition dies between flush and answer": lambda broker: broker.crash_at("partition orders-0", "after-flush"),
    "the disk is full, twice": lambda broker: broker.disk_error("partition orders-0", "ENOSPC", times=2),
    "a message to the partition is lost": lambda broker: broker.drop("broker 1", "partition orders-0", times=1),
    "the partition stands still for half a second": lambda broker: broker.pause("partition orders-0", for_s=0.5),
}

with (
    zafka.Broker(topics=["orders"]) as broker,
    # As from another machine: what fails between broker and partition does not touch who writes past the broker.
    zafka.Producer(broker.zmq_bootstrap_servers, delivery_timeout=30, direct=False) as producer,
):
    producer.send("orders", b"a first one").result()
    for told, inject in FAULTS.items():
        inject(broker)
        started_s = time.monotonic()
        offset = producer.send("orders", told.encode()).result().offset
        print(f"offset {offset} after {(time.monotonic() - started_s) * 1000:6.1f} ms: {told}")

    with zafka.Consumer("orders", bootstrap_servers=broker.bootstrap_servers, auto_offset_reset="earliest") as consumer:
        values = [record.value.decode() for batch in consumer.batches(timeout=1.0) for record in batch]
    assert values == ["a first one", *FAULTS], values
    print(len(values), "records, each one once and in order")
