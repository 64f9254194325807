"""zafka and Apache Kafka, asked the same: whatever differs is in `differences.toml`, and whatever is there differs.

To look for oneself: `pytest tests/differential -k Fetch` prints every difference that is not explained.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

from benchmarks.targets import kafka_missing
from tests.differential import (
    admin_cases,
    cluster_cases,
    data_cases,
    generated,
    group_cases,
    member_cases,
    recorded,
    seldom_admin_cases,
    seldom_cases,
    table,
)
from tests.differential.admin_cases import STRANGE
from tests.differential.cases import Case
from tests.differential.compare import Difference
from tests.differential.group_jobs import GROUP_JOBS
from tests.differential.jobs import JOBS
from tests.differential.run import Sides, common_versions, prepare, run, run_bytes, run_generated, run_recorded
from tests.differential.sides import both_running
from zafka.actors.gateway.registry import APIS
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.layout import load_api

SEED = int(os.environ.get("DIFFERENTIAL_SEED", "1"))
pytestmark = pytest.mark.timeout(300)  # one of the tests starts both brokers and asks everything
CASES: list[Case] = [
    *data_cases.CASES, *admin_cases.CASES, *cluster_cases.CASES, *group_cases.CASES, *member_cases.CASES, *seldom_cases.CASES,
    *seldom_admin_cases.CASES]


@pytest.fixture(scope="module")
def sides() -> Iterator[Sides]:
    if missing := kafka_missing():
        pytest.fail(missing) if os.environ.get("CI") == "true" else pytest.skip(missing)
    assert shutil.which("java")
    with both_running() as pair:
        prepare(pair)
        yield pair


@pytest.fixture(scope="module")
def found(sides: Sides) -> list[Difference]:
    """Everything, in one order: what one case makes, another may see."""
    differences = [difference for case in CASES for difference in run(case, sides)]
    differences += [difference for strange in STRANGE for difference in run_bytes(strange, sides)]
    differences += [difference for key in generated.APIS for difference in run_generated(key, SEED, sides)]
    return differences + run_recorded(sides)


@pytest.mark.parametrize("api", ["(any)", *(load_api(key).name for key in sorted(APIS))])
def test_answers_are_equal_or_explained(found: list[Difference], api: str) -> None:
    verdict = table.Verdict([each for each in found if each.api == api], table.entries())
    assert not verdict.unexplained, table.summary(verdict.unexplained)


def test_every_explanation_is_needed(found: list[Difference]) -> None:
    assert table.Verdict(found, table.entries()).not_needed == []


def test_every_api_in_every_version_is_compared(sides: Sides) -> None:
    for key, api in APIS.items():
        versions = common_versions(key, sides)
        assert set(versions) == set(api.versions), load_api(key).name
        covered = {version for case in CASES if case.key == key for version in case.versions if version in versions}
        assert covered == set(versions), load_api(key).name


def test_what_clients_sent_is_written_again_as_it_came() -> None:
    """So what is replayed is what they sent, apart from ids and times."""
    _, requests = recorded.load()
    assert {each.client for each in requests} == {*JOBS, *GROUP_JOBS}
    for each in requests:
        if each.api in APIS:
            assert each.frame == recorded.write(each, each.request) + recorded.rest(each), each
    assert {each.api for each in requests if each.api in APIS and recorded.rest(each)} == {ApiKey.METADATA}


def test_the_document_is_up_to_date() -> None:
    assert table.DOCUMENT.read_text() == table.document(table.entries()), "run python -m tests.differential.table"
