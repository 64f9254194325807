"""A group whose coordinator is killed while members join, while they sync and while they commit is whole again soon.

How soon is measured by `benchmarks/group_recovery.py`, whose members these are; here the bound is generous, but shorter than
a session: nothing may come right only because somebody is given up.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.group_recovery import PHASES, SESSION_MS, recovering_broker, recovery_s
from zafka.testing import Broker

WITHIN_S = 15.0


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    """Of this module's own, because it kills processes."""
    with recovering_broker() as broker:
        yield broker


@pytest.mark.parametrize("phase", PHASES)
def test_a_group_is_whole_again_when_its_coordinator_was_killed(broker: Broker, phase: str) -> None:
    assert WITHIN_S < SESSION_MS / 1000
    took_s = recovery_s(broker, phase, f"group-{phase}")
    print(f"{phase}: {took_s:.3f} s")
    assert took_s < WITHIN_S
