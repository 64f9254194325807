"""Faust: an agent counts words in a table with a changelog, and a stream is grouped anew. `faust_app.py GUARANTEE RUN`.

Two runs are one worker that is started again: the second recovers its table from the changelog.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile

import faust
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

guarantee, run = sys.argv[1], int(sys.argv[2])
ROUND = ["kafka", "log", "kafka", "actor"] * 5
app = faust.App(
    f"faust-{guarantee}", broker=f"kafka://{os.environ['BOOTSTRAP']}", store="memory://", web_enabled=False,
    processing_guarantee=guarantee, topic_partitions=2, stream_wait_empty=False, broker_commit_interval=0.3,
    datadir=tempfile.mkdtemp(prefix="faust-"))


class Word(faust.Record):
    text: str
    line: int


words = app.topic(f"faust-words-{guarantee}", value_type=Word, partitions=2)
counts = app.Table(f"faust-counts-{guarantee}", default=int, partitions=2)
counted = 0


@app.agent(words)
async def count(stream: faust.Stream[Word]) -> None:
    global counted
    async for word in stream.group_by(Word.text):
        counts[word.text] += 1
        counted += 1
        if counted == len(ROUND):
            found = {text: counts[text] for text in set(ROUND)}
            print(json.dumps({"counts": found == {"kafka": 10 * run, "log": 5 * run, "actor": 5 * run}}), flush=True)
            os.kill(os.getpid(), signal.SIGTERM)


def write() -> None:
    """Before the worker starts: its members look for a topic that is not there every five minutes (aiokafka's default)."""
    settings = {"bootstrap.servers": os.environ["BOOTSTRAP"]}
    admin = AdminClient(settings)  # outlives its futures
    (created,) = admin.create_topics([NewTopic(words.get_topic_name(), 2)]).values()
    created.exception(30)  # the second run finds it there
    producer = Producer(settings)
    for line, text in enumerate(ROUND):
        producer.produce(words.get_topic_name(), json.dumps({"text": text, "line": line}).encode(), key=str(line))
    assert producer.flush(30) == 0


if __name__ == "__main__":
    write()
    try:
        faust.Worker(app, loglevel="ERROR", redirect_stdouts=False).execute_from_commandline()
    finally:
        shutil.rmtree(app.conf.datadir, ignore_errors=True)
