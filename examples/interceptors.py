"""Interceptors: a trace on every record that goes out, and a count of what became of them.

Needs a broker; python examples/interceptors.py [ADDRESS]
"""

import sys
from collections import Counter

import zafka
from zafka.client.errors import BrokerRefused

where = sys.argv[1] if len(sys.argv) > 1 else None
became: Counter[str] = Counter()


class Tracing:
    def on_send(self, record: zafka.ProducerRecord) -> zafka.ProducerRecord:
        return record._replace(headers=[*(record.headers or ()), ("trace", b"t-%d" % record.value)])

    def on_acknowledgement(self, metadata: zafka.RecordMetadata, error: Exception | None) -> None:
        became["acknowledged" if error is None else type(error).__name__] += 1


class Sampling:
    def on_consume(self, records: list[zafka.Record]) -> list[zafka.Record]:
        return [record for record in records if record.offset % 10 == 0]


with zafka.Admin(where) as admin:
    try:
        admin.create_topic("traced", partitions=1)
    except BrokerRefused as refused:
        print(refused)

with zafka.Producer(where, interceptors=[Tracing()], value_serializer=lambda number: b"%d" % number) as producer:
    producer.send_many("traced", range(50))
print(dict(became))

with zafka.Consumer("traced", bootstrap_servers=where, auto_offset_reset="earliest", interceptors=[Sampling()]) as consumer:
    for record in consumer.records(timeout=1.0):
        print(record.offset, record.value, record.header("trace"))
