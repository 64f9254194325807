"""Send and read objects as JSON. Needs a broker; python examples/serializers.py [ADDRESS]"""

import json
import sys
from typing import Any

import zafka
from zafka.client.errors import BrokerRefused

where = sys.argv[1] if len(sys.argv) > 1 else None


def to_json(value: Any) -> bytes:
    return json.dumps(value).encode()


with zafka.Admin(where) as admin:
    try:
        admin.create_topic("objects", partitions=1)
    except BrokerRefused as refused:
        print(refused)

with zafka.Producer(where, key_serializer=str.encode, value_serializer=to_json) as producer:
    producer.send("objects", {"order": 1, "total": 9.5}, key="u1", timestamp_ms=1_700_000_000_000)
    producer.send("objects", {"order": 2, "total": 3.0}, key="u2", headers={"trace": b"7"})

with zafka.Consumer(
    "objects", bootstrap_servers=where, auto_offset_reset="earliest", key_deserializer=bytes.decode,
    value_deserializer=json.loads,
) as consumer:  # fmt: skip
    for record in consumer.records(timeout=1.0):
        print(record.key, record.value, "at", record.timestamp, record.header("trace"))
