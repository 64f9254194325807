"""Quix Streams: sums by key in a state store with a changelog, and counts by windows. `quix_app.py GUARANTEE RUN`.

Two runs are one program that is started again: the second goes on with the state of the first.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile

from confluent_kafka import Consumer
from quixstreams import Application, State

guarantee, run = sys.argv[1], int(sys.argv[2])
EACH, USERS = 20, 4
app = Application(
    broker_address=os.environ["BOOTSTRAP"], consumer_group=f"totals-{guarantee}", auto_offset_reset="earliest",
    processing_guarantee=guarantee, state_dir=tempfile.mkdtemp(prefix="quix-"), commit_interval=0.5, loglevel="ERROR")
orders = app.topic(f"quix-orders-{guarantee}", value_deserializer="json", key_deserializer="str")
totals = app.topic(f"quix-totals-{guarantee}", value_serializer="json")


def add(order: dict[str, int], state: State) -> dict[str, int]:
    total = state.get("total", 0) + order["amount"]
    state.set("total", total)
    return {"total": total}


app.dataframe(orders).apply(add, stateful=True).to_topic(totals)
windows = app.dataframe(app.topic(f"quix-totals-{guarantee}", value_deserializer="json", key_deserializer="str"))
seen: list[int] = []
windows.tumbling_window(3_600_000).count().current().update(lambda window: seen.append(window["value"]))

with app.get_producer() as producer:
    for number in range(EACH):
        producer.produce(orders.name, json.dumps({"amount": 1}).encode(), key=str(number % USERS))
try:
    app.run(timeout=20, count=2 * EACH)
finally:
    shutil.rmtree(app.config.state_dir, ignore_errors=True)

consumer = Consumer({
    "bootstrap.servers": os.environ["BOOTSTRAP"], "group.id": f"quix-check-{run}", "auto.offset.reset": "earliest"})
consumer.subscribe([totals.name])
last: dict[str, int] = {}
for _ in range(run * EACH):
    message = consumer.poll(20)
    assert message is not None and message.error() is None, message and message.error()
    last[message.key().decode()] = json.loads(message.value())["total"]
consumer.close()
print(json.dumps({"totals": last == {str(user): run * EACH // USERS for user in range(USERS)},
                  "windows": len(seen) >= EACH}))
