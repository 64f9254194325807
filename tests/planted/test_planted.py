"""Every planted bug is found, by the seed or the test that has found it before.

A change of the code may move a seed's meaning; then the bug must be found within as many seeds as `make planted RECORD=1`
looks at, which writes the new ones down.
"""

from __future__ import annotations

import warnings

import pytest

from tests.planted.plant import SEEDS_MAX, Bug, planted, read_bugs, run_seeds, run_tests


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
