"""Two consumers become three become one under load, in both protocols, while any process is killed.

Each run draws an assignor of each client and protocol; `make groups` has them all, for as long as wanted.
"""

from __future__ import annotations

import os
import random

import pytest

from tests.faults.groups.campaign import campaign
from tests.faults.groups.kinds import CLASSIC, KIP_848, OURS, OURS_848

SEED = int(os.environ.get("SEED", "0")) or random.randrange(1, 2**31)


@pytest.mark.timeout(480)
def test_two_become_three_become_one_whoever_is_killed() -> None:
    print(f"SEED={SEED}")
    choice = random.Random(SEED)
    kinds = [choice.choice(CLASSIC), choice.choice(KIP_848), choice.choice(OURS), choice.choice(OURS_848)]
    with campaign(kinds, SEED) as run:
        run.join(2)
        run.join(1, may_crash=True)
        run.leave()
        run.crash()
        run.finish()
        print(run.told())
    assert run.problems == []
    assert run.killer.done.total() > 5 and run.load.acknowledged > 200
