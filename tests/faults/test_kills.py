"""Nothing acknowledged is lost, doubled or moved, and no send fails, whatever process is killed or stopped.

RELIABILITY, invariants 1 to 3 and 6; faults 1. By hand for longer: `make soak SECONDS=600`. SEED=n repeats the
choices of a run (not its timing).
"""

from __future__ import annotations

import os
import random
import threading
from pathlib import Path

import pytest

from tests.faults.chaos import Chaos
from tests.faults.loads import PARTITIONS, ConfluentLoad, ZafkaLoad, problems_of, read_all
from zafka.testing import Broker

SECONDS = float(os.environ.get("SECONDS", "15"))
SEED = int(os.environ.get("SEED", "0")) or random.randrange(1, 2**31)

IMPATIENT = {"supervision": {"intensity": 100000, "heartbeat": "200ms", "hung_after": "2s"}}


@pytest.mark.timeout(SECONDS + 240)
def test_nothing_is_lost_under_random_kills(tmp_path: Path) -> None:
    print(f"SEED={SEED} SECONDS={SECONDS:g}")
    failed = threading.Event()
    with Broker(
        {"librdkafka": PARTITIONS, "ours": PARTITIONS}, data_dir=tmp_path / "data", topology=IMPATIENT, allow_faults=False
    ) as broker:
        loads = [
            ConfluentLoad(broker.bootstrap_servers, "librdkafka", failed),
            ZafkaLoad(broker.zmq_bootstrap_servers, "ours", failed),
        ]
        for load in loads:
            load.start()
        chaos = Chaos(broker, SEED)
        chaos.run(SECONDS, failed)
        for load in loads:
            load.finish()
        print(f"{dict(chaos.done)}; records acknowledged: "
              f"{ {load.topic: sum(map(len, load.acknowledged)) for load in loads} }")
        problems = [
            problem for load in loads for problem in problems_of(load, read_all(broker.bootstrap_servers, load.topic))]
        assert problems == [], f"SEED={SEED}\n" + broker.log[-20000:]
        assert all(sum(load.sent) > 100 for load in loads)


class Finished:
    """What a load knows at its end: 3 records, all sent to partition 0."""

    topic = "t"
    failures: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.sent = [3, 0, 0, 0]
        self.acknowledged: list[dict[int, int]] = [{0: 0, 1: 1, 2: 2}, {}, {}, {}]


@pytest.mark.parametrize(
    ("records", "told"),
    [
        ([(0, b"0"), (1, b"1"), (2, b"2")], []),
        ([(0, b"0"), (1, b"1")], ["2 records for 3 sent"]),
        ([(0, b"0"), (1, b"1"), (2, b"1"), (3, b"2")], ["4 records for 3 sent", "acknowledged offset"]),
        ([(0, b"1"), (1, b"0"), (2, b"2")], ["from offset 0 on they are", "acknowledged offset"]),
        ([(0, b"0"), (2, b"1"), (3, b"2")], ["offsets have a gap", "acknowledged offset"]),
    ],
)
def test_the_check_finds_what_it_is_for(records: list[tuple[int, bytes]], told: list[str]) -> None:
    problems = problems_of(Finished(), [records, [], [], []])
    assert len(problems) == len(told)
    assert all(word in problem for word, problem in zip(told, problems, strict=True))
