"""A disk that fails a flush under a running zafka: nothing is acknowledged over it, and only that replica goes.

RELIABILITY, promises and fault 4 (fsync error); DESIGN 3, "a failed flush".
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import zafka
from tests.powercut.mount import ForgetfulMount, missing
from tests.powercut.systems import Zafka

TOPICS = [{"name": "orders", "partitions": 2}]
ANSWER_S = 20.0


@pytest.fixture
def mount() -> Iterator[ForgetfulMount]:
    reason = missing()
    if reason:
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    with ForgetfulMount() as mount:
        yield mount


def put(native: str, partition: int, value: bytes, *, timeout_s: float = ANSWER_S) -> int:
    with zafka.Producer(native, bootstrap_timeout=ANSWER_S, delivery_timeout=timeout_s) as producer:
        return producer.send("orders", value, partition=partition).result(ANSWER_S + timeout_s).offset


def test_a_failed_flush_takes_its_replica_offline_and_acknowledges_nothing(tmp_path: Path, mount: ForgetfulMount) -> None:
    system = Zafka(tmp_path, mount.path / "data", topics=TOPICS)
    system.launch()
    try:
        system.wait_ready()
        assert [put(system.native, partition, b"before") for partition in (0, 1)] == [0, 0]
        mount.fail_sync("/data/broker-1/orders-0/*.log")
        with pytest.raises(zafka.ZafkaError, match="KAFKA_STORAGE_ERROR"):
            put(system.native, 0, b"flushed in vain", timeout_s=1.5)
        assert put(system.native, 1, b"after") == 1
        # What the page cache still holds must not be believed after a restart, nor what is left after a cut.
        for cut in (False, True):
            if cut:
                mount.cut()
            system.kill_all()
            if cut:
                mount.come_back(seed=1)
            system.launch()
            system.wait_ready()
            with pytest.raises(zafka.ZafkaError, match=r"KAFKA_STORAGE_ERROR|no leader"):
                put(system.native, 0, b"still offline", timeout_s=1.5)
            assert put(system.native, 1, b"after") == 2 + cut
    finally:
        system.stop()
