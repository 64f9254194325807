"""Two consumers become three become one under load, with each assignor and both protocols, while any process is killed."""

from __future__ import annotations

import os
import random

import pytest

from tests.faults.groups.campaign import campaign
from tests.faults.groups.kinds import KINDS

SEED = int(os.environ.get("SEED", "0")) or random.randrange(1, 2**31)


@pytest.mark.timeout(240)
def test_two_become_three_become_one_whoever_is_killed() -> None:
    print(f"SEED={SEED}")
    with campaign([kind for kind in KINDS if kind.client != "java"], SEED) as run:
        run.join(2)
        run.join(1, may_crash=True)
        run.leave()
        run.crash()
        run.finish()
        print(run.told())
    assert run.problems == []
    assert run.killer.done.total() > 5 and run.load.acknowledged > 500
