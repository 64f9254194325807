"""The power of a whole zafka is cut under load: nothing acknowledged is lost, doubled or moved, and nobody has to help.

RELIABILITY, promises and invariants 1 to 6 and 9; faults 1 and 4. By hand: `make powercut CUTS=200`. The machine is
proved by a topic that does not flush: there the same check must find losses.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.powercut.mount import missing
from tests.powercut.power_cuts import UNDER_LOAD, cut_zafka

CUTS = 8
SEED = int(os.environ.get("SEED", "0")) or random.randrange(1, 2**31)


@pytest.fixture(autouse=True)
def fuse() -> None:
    reason = missing()
    if reason:
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)


@pytest.mark.timeout(300)
def test_nothing_is_lost_in_power_cuts(tmp_path: Path) -> None:
    print(f"SEED={SEED}")
    power = cut_zafka(CUTS, SEED, tmp_path)
    print(power.told())
    assert power.shared.problems() == [], f"SEED={SEED}\n{power.system.log_tail()}"
    assert power.done.total() == CUTS
    assert all(load.acknowledged > 500 for load in power.loads)
    assert power.forgotten["changes lost"] + power.forgotten["names lost"] > 0
    assert power.topics is not None and power.topics.created > 0


@pytest.mark.timeout(300)
def test_the_check_finds_what_is_lost_without_flushes(tmp_path: Path) -> None:
    """`fsync: os` promises nothing in a power cut. If this finds no loss, the test above proves nothing."""
    print(f"SEED={SEED}")
    topics = [{"name": name, "partitions": 2, "config": {"fsync": "os"}} for name in ("plain", "ours")]
    power = cut_zafka(3, SEED, tmp_path, topics=topics, is_lossy=True, kinds={UNDER_LOAD: (0.7, 1.5, 100)})
    print(power.told())
    assert power.shared.history.counts()["lost-write"] > 0
