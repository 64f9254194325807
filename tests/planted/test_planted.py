"""Every planted bug is found, by the seed or the test that has found it before.

A change of the code may move a seed's meaning; then the bug must be found within as many seeds as `make planted RECORD=1`
looks at, which writes the new ones down.
"""

from __future__ import annotations

import re
import warnings

import pytest

from tests.planted.plant import SEEDS_MAX, Bug, planted, read_bugs, run_python, run_seeds, run_tests
from tests.simulation.scenario import draw


@pytest.mark.timeout(300)
@pytest.mark.parametrize("bug", read_bugs(), ids=lambda bug: bug.name)
def test_a_planted_bug_is_found(bug: Bug) -> None:
    with planted(bug) as copy:
        if not bug.simulated:
            assert run_tests(copy, bug.tests), f"{bug.tests} pass with it"
        elif not run_seeds(copy, bug.seed, bug.seed)[0]:
            found, _ = run_seeds(copy, 1, SEEDS_MAX)
            assert found, f"neither seed {bug.seed} nor the first {SEEDS_MAX} find it"
            warnings.warn(f"{bug.name} is found by seed {found} now: make planted RECORD=1", stacklevel=1)


def test_a_seed_that_fails_is_told_with_as_few_faults_as_it_takes() -> None:
    (bug,) = (bug for bug in read_bugs() if bug.name == "ack-before-flush")
    with planted(bug) as copy:
        told = run_python(copy, "-m", "tests.simulation", str(bug.seed), "--shrink").stdout
    assert "lost-write" in told
    assert re.search(r"is dead", told)  # who, when, what
    faults = [int(count) for count in re.findall(r"\d+", told[told.rindex("\nfaults:") :].splitlines()[1])]
    assert 0 < sum(faults) < len(draw(bug.seed).faults)
