"""Send a few records and read them back. Needs a broker: `zafka up` in another terminal, or `zafka demo`.

python examples/hello.py                       # Kafka's protocol at 127.0.0.1:9092
python examples/hello.py tcp://127.0.0.1:9290  # the ZeroMQ door; any Apache Kafka works by host:port too
"""

import sys

import zafka
from zafka.client.errors import BrokerRefused

where = sys.argv[1] if len(sys.argv) > 1 else None

with zafka.Admin(where) as admin:
    try:
        admin.create_topic("hello", partitions=2)
    except BrokerRefused as refused:
        print(refused)  # it is there from the last time

with zafka.Producer(where) as producer:
    future = producer.send("hello", b"world", key=b"greeting", headers={"language": b"en"})
    print("acknowledged and on disk:", future.result())
    spans = producer.send_many("hello", [b"line %d" % number for number in range(10_000)]).result()
    print("and", sum(span.record_count for span in spans), "more in", len(spans), "batches")

with zafka.Consumer("hello", bootstrap_servers=where, auto_offset_reset="earliest") as consumer:
    for batch in consumer.batches(max_records=5000, timeout=1.0):
        print(f"{len(batch)} records, the last one is {batch[-1].value!r} at offset {batch[-1].offset}")
