"""Kombu over confluent-kafka: a queue that one connection fills and another one empties."""

from __future__ import annotations

import json
import os

from kombu import Connection

URL = f"confluentkafka://{os.environ['BOOTSTRAP']}"
JOBS = 10

with Connection(URL) as connection, connection.SimpleQueue("kombu-jobs") as queue:
    for number in range(JOBS):
        queue.put({"job": number})
found = []
with Connection(URL) as connection, connection.SimpleQueue("kombu-jobs") as queue:
    for _ in range(JOBS):
        message = queue.get(block=True, timeout=30)
        found.append(message.payload["job"])
        message.ack()
print(json.dumps({"jobs": found == list(range(JOBS))}))
