"""AlterConfigs, quotas and credentials: answered once this broker knows what was committed, not before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.broker_bench import COORDINATOR, SUPERVISOR, Bench, topic_id
from zafka.actors import cluster_state as cs, messages
from zafka.transport.kafka import messages as kafka
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages import (
    alter_client_quotas,
    alter_user_scram_credentials,
    incremental_alter_configs,
)


def altering(bench: Bench, api: ApiKey) -> tuple[Any, Any, Any]:
    """A request, what the coordinator answers to it, and the event that it committed."""
    offset = bench.cluster_offset + 1
    if api is ApiKey.INCREMENTAL_ALTER_CONFIGS:
        request: Any = kafka.IncrementalAlterConfigsRequest([incremental_alter_configs.AlterConfigsResource(
            2, "t", [incremental_alter_configs.AlterableConfig("retention.ms", 0, "5")])])
        done: Any = messages.ConfigsAltered(1, [(0, "")], offset)
        return request, done, cs.TopicConfigChanged(topic_id("t"), {"retention.ms": "5"})
    if api is ApiKey.ALTER_CLIENT_QUOTAS:
        request = kafka.AlterClientQuotasRequest([alter_client_quotas.EntryData(
            [alter_client_quotas.EntityData("user", "a")], [alter_client_quotas.OpData("producer_byte_rate", 1.0)])])
        event: Any = cs.QuotaChanged((("user", "a"),), {"producer_byte_rate": 1.0})
    else:
        request = kafka.AlterUserScramCredentialsRequest(
            [], [alter_user_scram_credentials.ScramCredentialUpsertion("a", 1, 4096, b"salt", bytes(32))])
        event = cs.ScramCredentialChanged("a", 1, cs.ScramCredential(b"salt", b"k", b"k", 4096))
    return request, messages.ClientsAltered(1, [(0, "")], offset), event


APIS = [ApiKey.INCREMENTAL_ALTER_CONFIGS, ApiKey.ALTER_CLIENT_QUOTAS, ApiKey.ALTER_USER_SCRAM_CREDENTIALS]


@pytest.mark.parametrize("api", APIS)
def test_the_answer_waits_until_this_broker_knows_the_change(tmp_path: Path, api: ApiKey) -> None:
    bench = Bench(tmp_path).start("t")
    client = bench.client()
    request, done, event = altering(bench, api)
    client.send(api, 0, request)
    bench.tell(COORDINATOR, done)
    assert client.answers() == []  # it is committed, and others may know it; here the old one holds
    bench.commit(event)
    (answer,) = client.answers()
    assert "REQUEST_TIMED_OUT" not in str(answer) and set(_errors(answer)) == {0}


@pytest.mark.parametrize("api", APIS)
def test_a_coordinator_that_dies_with_it_leaves_it_in_doubt(tmp_path: Path, api: ApiKey) -> None:
    bench = Bench(tmp_path).start("t")
    client = bench.client()
    request, _, _ = altering(bench, api)
    client.send(api, 0, request)
    bench.tell(SUPERVISOR, messages.ActorDown(*COORDINATOR))
    (answer,) = client.answers()
    assert set(_errors(answer)) == {ErrorCode.REQUEST_TIMED_OUT}


def _errors(answer: Any) -> list[int]:
    parts = getattr(answer, "responses", None) or getattr(answer, "entries", None) or answer.results
    return [part.error_code for part in parts]
