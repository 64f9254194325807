"""Read fast, by batches, and see how far behind one is. Needs a broker; python examples/batches.py [ADDRESS]"""

import sys

import zafka
from zafka.client.errors import BrokerRefused

where = sys.argv[1] if len(sys.argv) > 1 else None

with zafka.Admin(where) as admin:
    try:
        admin.create_topic("batches", partitions=4)
    except BrokerRefused as refused:
        print(refused)

with zafka.Producer(where, compression_type="zstd", compression_level=3) as producer:
    producer.send_many("batches", (b"reading %d" % number for number in range(50_000)))
    producer.flush()
    told = producer.metrics()
    print(f"{told.records} records, {told.batches} batches, p99 {told.latency.p99:.1f} ms from first record to disk")

with zafka.Consumer("batches", bootstrap_servers=where, auto_offset_reset="earliest") as consumer:
    total = 0
    for batch in consumer.batches(max_records=10_000, timeout=1.0):
        total += sum(len(record.value or b"") for record in batch)
    metrics = consumer.metrics()
    print(f"{metrics.records} records, {total} bytes, behind by {sum(metrics.lag.values())}")
