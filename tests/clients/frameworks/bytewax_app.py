"""Bytewax: words from a topic, counted, to another topic; the source reads all partitions and stops at their ends."""

from __future__ import annotations

import json
import os

import bytewax.operators as op
from bytewax.connectors.kafka import KafkaSinkMessage, operators as kop
from bytewax.dataflow import Dataflow
from bytewax.testing import run_main
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic

bootstrap = os.environ["BOOTSTRAP"]
WORDS = ["kafka", "log", "kafka", "actor", "log", "kafka"]
admin = AdminClient({"bootstrap.servers": bootstrap})
for created in admin.create_topics([NewTopic("bytewax-words", 3), NewTopic("bytewax-counts", 1)]).values():
    created.result(30)
producer = Producer({"bootstrap.servers": bootstrap})
for word in WORDS:
    producer.produce("bytewax-words", word.encode(), key=word.encode())
assert producer.flush(30) == 0

flow = Dataflow("words")
words = kop.input("in", flow, brokers=[bootstrap], topics=["bytewax-words"], tail=False)
op.raises("errors", words.errs)
counts = op.count_final("count", words.oks, lambda message: message.value.decode())
out = op.map("out", counts, lambda pair: KafkaSinkMessage(pair[0].encode(), str(pair[1]).encode()))
kop.output("sink", out, brokers=[bootstrap], topic="bytewax-counts")
run_main(flow)

consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "bytewax-check", "auto.offset.reset": "earliest"})
consumer.subscribe(["bytewax-counts"])
found = {}
for _ in range(3):
    message = consumer.poll(30)
    assert message is not None and message.error() is None, message and message.error()
    found[message.key().decode()] = int(message.value())
consumer.close()
print(json.dumps({"counts": found == {"kafka": 3, "log": 2, "actor": 1}}))
