"""How long it takes to come back: one partition killed, everything killed, and what opening a large clean log reads."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaError, Producer

from benchmarks import targets
from benchmarks.load import create_topic, first_acknowledged_produce, produce
from zafka.storage.batch import read_header
from zafka.storage.config import parse_config
from zafka.storage.disk import PosixDisk
from zafka.storage.records import encode_batch
from zafka.storage.recovery import recover

GIB = 1 << 30
SETTLED_S = 1.2


def grow_log(directory: Path, *, size_bytes: int, records_per_batch: int) -> None:
    """Append batches of 1 kB records to a partition directory that nobody has open, and close it cleanly."""
    disk = PosixDisk()
    log, _ = recover(disk, directory, parse_config({"fsync": "os"}), now_ms())
    batch = memoryview(encode_batch([(now_ms(), None, b"x" * 1000, [])] * records_per_batch))
    header = read_header(batch)
    turn = [(header, batch)] * max(1, 1_000_000 // len(batch))
    grown_bytes = 0
    while grown_bytes < size_bytes:
        log.append(turn, leader_epoch=max(log.leader_epochs.latest, 0), now_ms=now_ms())
        grown_bytes += len(batch) * len(turn)
        flush(disk, log, log.begin_flush())
    flush(disk, log, log.checkpoint())
    log.close()


def need_room(size_bytes: int) -> None:
    """Refuse to fill a disk: half as much again must be free. Raises RuntimeError."""
    free_bytes = shutil.disk_usage(tempfile.gettempdir()).free
    if free_bytes < size_bytes * 1.5:
        raise RuntimeError(f"{size_bytes / 1e9:.0f} GB are wanted in {tempfile.gettempdir()}, {free_bytes / 1e9:.0f} GB are free")


def flush(disk: PosixDisk, log: Any, wanted: Any) -> None:
    """Perform a flush as the process shell does, and every flush that it leads to."""
    while wanted is not None:
        for file in wanted.files:
            disk.fdatasync(file)
        for path in wanted.directories:
            disk.fsync_dir(path)
        wanted = log.on_flushed(wanted.token)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def actors(target: targets.Target) -> list[dict[str, Any]]:
    topology = target.directory / "topology.yaml"
    out = subprocess.check_output(
        [sys.executable, "-m", "zafka", "status", str(topology), "--format", "json"], cwd=targets.ROOT
    )
    found: list[dict[str, Any]] = json.loads(out)["actors"]
    return found


def prepared(*, size_bytes: int, records_per_batch: int) -> targets.Target:
    """zafka with a topic `big` whose one partition holds `size_bytes`."""
    directory = Path(tempfile.mkdtemp(prefix="bench-recovery-"))
    target = targets.start_zafka(directory, port=targets.free_port())
    create_topic(target.bootstrap, "big", 1)
    first_acknowledged_produce(target.bootstrap, "big")
    target.stop()
    grow_log(directory / "data" / "broker-1" / "big-0", size_bytes=size_bytes, records_per_batch=records_per_batch)
    return targets.start_zafka(directory, port=int(target.bootstrap.rpartition(":")[2]))


def partition_restart_ms(*, rounds: int = 9, size_bytes: int = GIB) -> list[float]:
    """SIGKILL of a partition actor with a 1 GB log of single-record batches, to the next acknowledgement.

    5,000 records that no checkpoint covers are written before each kill, as a busy partition would have it.
    """
    target = prepared(size_bytes=size_bytes, records_per_batch=1)
    taken_ms = []
    try:
        probe = Probe(target.bootstrap, "big")
        for _ in range(rounds):
            probe.fill(5_000)
            time.sleep(SETTLED_S)  # a kill sooner than a second after a start counts as a crash and is backed off
            pid = next(a["pid"] for a in actors(target) if a["name"] == "partition big-0")
            taken_ms.append(probe.time_to_ack_after(lambda pid=pid: os.kill(pid, signal.SIGKILL)) * 1e3)
    finally:
        target.stop()
        shutil.rmtree(target.directory, ignore_errors=True)
    return taken_ms


class Probe:
    """One producer that sends a record at a time and retries at once."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._topic = topic
        self._producer = Producer({
            "bootstrap.servers": bootstrap, "acks": "all", "linger.ms": 0, "enable.idempotence": True,
            "retry.backoff.ms": 2, "retry.backoff.max.ms": 5, "reconnect.backoff.ms": 2,
            "reconnect.backoff.max.ms": 5, "topic.metadata.refresh.fast.interval.ms": 5, "log_level": 0,
        })

    def fill(self, count: int) -> None:
        for _ in range(count):
            self._producer.produce(self._topic, b"y" * 1000)
        assert self._producer.flush(30) == 0

    def time_to_ack_after(self, act: Any) -> float:
        acked = threading.Event()

        def on_delivery(error: KafkaError | None, _message: Any) -> None:
            assert error is None, error
            acked.set()

        act()
        started_s = time.perf_counter()
        self._producer.produce(self._topic, b"after", on_delivery=on_delivery)
        while not acked.is_set():
            self._producer.poll(0.001)
        return time.perf_counter() - started_s


def all_killed_ms(kind: str, *, size_bytes: int = 2 * GIB) -> float:
    """Everything killed -9 with 2 GB of log written by clients, started again, to the first acknowledged produce."""
    directory = Path(tempfile.mkdtemp(prefix=f"bench-killed-{kind}-"))
    port = targets.free_port()
    start = targets.start_zafka if kind == "zafka" else targets.start_kafka
    target = start(directory, port=port)
    try:
        create_topic(target.bootstrap, "t")
        produce(target.bootstrap, "t", count=size_bytes // 1024, size_bytes=1000)
        target.kill()
        started_s = time.monotonic()
        thread = threading.Thread(target=first_acknowledged_produce, args=(f"127.0.0.1:{port}", "t"))
        thread.start()
        target = start(directory, port=port)
        thread.join(60)
        return (time.monotonic() - started_s) * 1e3
    finally:
        target.stop()
        shutil.rmtree(directory, ignore_errors=True)


def clean_open_rchar(*, size_bytes: int = 10 * GIB) -> int:
    """Bytes that a process reads (`rchar`) to open a cleanly closed log of 10 GB."""
    directory = Path(tempfile.mkdtemp(prefix="bench-open-"))
    try:
        grow_log(directory, size_bytes=size_bytes, records_per_batch=100)
        before = read_chars()
        log, _ = recover(PosixDisk(), directory, parse_config({}), now_ms())
        read = read_chars() - before
        log.close()
        return read
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def read_chars() -> int:
    return int(Path("/proc/self/io").read_text().split()[1])


def start_to_first_ack_ms(kind: str, *, rounds: int = 5) -> Iterator[float]:
    """Launch on an existing, small data directory to the first acknowledged produce."""
    directory = Path(tempfile.mkdtemp(prefix=f"bench-start-{kind}-"))
    port = targets.free_port()
    start = targets.start_zafka if kind == "zafka" else targets.start_kafka
    try:
        target = start(directory, port=port)
        create_topic(target.bootstrap, "t", 4)
        target.stop()
        for _ in range(rounds):
            thread = threading.Thread(target=first_acknowledged_produce, args=(f"127.0.0.1:{port}", "t"))
            started_s = time.monotonic()
            thread.start()
            target = start(directory, port=port)
            thread.join(60)
            yield (time.monotonic() - started_s) * 1e3
            target.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def idle_pss_mb(kind: str) -> float:
    """Memory of the whole idle cluster with one topic of 4 partitions."""
    with targets.running(kind) as target:
        create_topic(target.bootstrap, "t", 4)
        first_acknowledged_produce(target.bootstrap, "t")
        return target.pss_bytes() / 1e6

