"""Celery over confluent-kafka: a worker of its own process does what this one asks for. `celery_app.py` is both.

Results are files: Kafka is its broker only. Gossip, mingle and remote control want fanout, which kombu's transport has not.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile

from celery import Celery

results = os.environ.setdefault("RESULTS", tempfile.mkdtemp(prefix="celery-"))
app = Celery("celery_app", broker=f"confluentkafka://{os.environ['BOOTSTRAP']}", backend=f"file://{results}")
app.conf.update(worker_enable_remote_control=False, task_default_queue="celery-jobs", broker_connection_retry_on_startup=True)


@app.task
def add(one: int, other: int) -> int:
    return one + other


if __name__ == "__main__":
    worker = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "celery_app", "worker", "--pool", "solo", "--without-gossip",
         "--without-mingle", "--without-heartbeat", "--loglevel", "ERROR"],
        cwd=os.path.dirname(os.path.abspath(__file__)))
    try:
        told = [add.delay(number, 1) for number in range(10)]
        print(json.dumps({"sums": [each.get(timeout=60) for each in told] == list(range(1, 11))}))
    finally:
        worker.terminate()
        worker.wait(30)
