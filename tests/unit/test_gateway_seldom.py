"""What administrators seldom ask a broker: elections, places, quotas, credentials, and alterations that cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.broker_bench import BROKER_ID, Bench
from zafka.actors import cluster_state as cs, messages
from zafka.transport.kafka import messages as kafka
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages import (
    alter_configs,
    alter_partition_reassignments as reassignments,
    describe_client_quotas as quotas,
    describe_user_scram_credentials as credentials,
    incremental_alter_configs as incremental,
)

TOPIC, BROKER, GROUP = 2, 4, 32


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path).start("t")


def test_partitions_that_need_no_election_are_not_told_where_all_are_asked_for(bench: Bench) -> None:
    bench.create("u", partitions=2)
    bench.serve("u", 0)
    answer = bench.client().ask(ApiKey.ELECT_LEADERS, 2, kafka.ElectLeadersRequest(0, None))
    told = {topic.topic: [part.partition_id for part in topic.partition_result] for topic in answer.replica_election_results}
    assert told["u"] == [1], "it has no leader"


def test_a_move_that_is_not_under_way_cannot_be_called_off(bench: Bench) -> None:
    answer = bench.client().ask(ApiKey.ALTER_PARTITION_REASSIGNMENTS, 1, kafka.AlterPartitionReassignmentsRequest(
        topics=[reassignments.ReassignableTopic("t", [reassignments.ReassignablePartition(0, None)])]))
    (part,) = answer.responses[0].partitions
    assert part.error_code == ErrorCode.NO_REASSIGNMENT_IN_PROGRESS


def test_resources_are_listed_by_type(bench: Bench) -> None:
    bench.commit(cs.ResourceConfigChanged(BROKER, "", {"log.roll.ms": "5"}))
    bench.commit(cs.ResourceConfigChanged(GROUP, "g", {"consumer.heartbeat.interval.ms": "500"}))
    answer = bench.client().ask(ApiKey.LIST_CONFIG_RESOURCES, 1, kafka.ListConfigResourcesRequest([GROUP, BROKER]))
    assert sorted((each.resource_type, each.resource_name) for each in answer.config_resources) == [
        (BROKER, str(BROKER_ID)), (GROUP, "g")]


@pytest.mark.parametrize(("match", "strict", "found"), [
    ((quotas.ComponentData("user", 0, "a"),), False, ["a", "a x"]),
    ((quotas.ComponentData("user", 0, "a"),), True, ["a"]),
    ((quotas.ComponentData("user", 1, None),), False, ["default"]),
    ((quotas.ComponentData("user", 2, None),), True, ["a", "default"]),
    ((quotas.ComponentData("user", 2, None), quotas.ComponentData("client-id", 0, "x")), True, ["a x"]),
    ((), False, ["a", "a x", "default"]),
])
def test_quotas_are_described_as_the_filter_says(
    bench: Bench, match: tuple[quotas.ComponentData, ...], strict: bool, found: list[str]
) -> None:
    for number, entity in enumerate(((("user", "a"),), (("client-id", "x"), ("user", "a")), (("user", None),))):
        bench.commit(cs.QuotaChanged(entity, {"producer_byte_rate": float(number)}))
    answer = bench.client().ask(ApiKey.DESCRIBE_CLIENT_QUOTAS, 1, kafka.DescribeClientQuotasRequest(list(match), strict))
    names = ["a", "a x", "default"]
    assert sorted(names[int(entry.values[0].value)] for entry in answer.entries) == found


def test_a_user_that_is_named_twice_is_not_described(bench: Bench) -> None:
    bench.commit(cs.ScramCredentialChanged("a", 1, cs.ScramCredential(b"s", b"k", b"k", 4096)))
    users = [credentials.UserName(name) for name in ("a", "a", "b")]
    answer = bench.client().ask(
        ApiKey.DESCRIBE_USER_SCRAM_CREDENTIALS, 0, kafka.DescribeUserScramCredentialsRequest(users))
    assert [(each.user, each.error_code) for each in answer.results] == [
        ("a", ErrorCode.DUPLICATE_RESOURCE), ("b", ErrorCode.RESOURCE_NOT_FOUND)]


# -- alterations -----------------------------------------------------------------------------------


def alter(bench: Bench, *resources: incremental.AlterConfigsResource, validate_only: bool = False) -> list[int]:
    """The errors of what is refused here; what goes to the coordinator is not answered yet."""
    client = bench.client()
    client.send(ApiKey.INCREMENTAL_ALTER_CONFIGS, 1, kafka.IncrementalAlterConfigsRequest(list(resources), validate_only))
    return [result.error_code for answer in client.answers() for result in answer.responses]


def resource(kind: int, name: str, *configs: tuple[str, int, str | None]) -> incremental.AlterConfigsResource:
    return incremental.AlterConfigsResource(kind, name, [incremental.AlterableConfig(*each) for each in configs])


@pytest.mark.parametrize("operation", [0, 2, 3])
def test_null_is_no_value_but_for_taking_away(bench: Bench, operation: int) -> None:
    assert alter(bench, resource(TOPIC, "t", ("cleanup.policy", operation, None))) == [ErrorCode.INVALID_REQUEST]
    assert alter(bench, resource(TOPIC, "t", ("cleanup.policy", 1, None))) == []
    (asked,) = bench.sent(messages.AlterConfigs)
    assert [each.key for each in asked.changes[0].operations] == ["cleanup.policy"]


def test_a_resource_that_is_named_twice_is_refused_as_often(bench: Bench) -> None:
    twice = resource(TOPIC, "t", ("retention.ms", 0, "5"))
    assert alter(bench, twice, twice) == [ErrorCode.INVALID_REQUEST] * 2


def test_all_brokers_and_this_one_may_be_altered_and_no_other(bench: Bench) -> None:
    change = ("log.roll.ms", 0, "5")
    assert alter(bench, resource(BROKER, "99", change)) == [ErrorCode.INVALID_REQUEST]
    for name in ("", str(BROKER_ID)):
        assert alter(bench, resource(BROKER, name, change), validate_only=True) == []
        (asked,) = bench.sent(messages.AlterConfigs)
        assert asked.validate_only and asked.changes[0].name == name


def test_all_that_was_altered_is_said_anew_by_the_older_request(bench: Bench) -> None:
    client = bench.client()
    client.send(ApiKey.ALTER_CONFIGS, 1, kafka.AlterConfigsRequest(
        [alter_configs.AlterConfigsResource(TOPIC, "t", [alter_configs.AlterableConfig("retention.ms", "5")])]))
    (asked,) = bench.sent(messages.AlterConfigs)
    assert asked.changes == [messages.ConfigChange(
        TOPIC, "t", [messages.ConfigOperation(0, "retention.ms", "5")], replace=True)]
