"""A consumer that says where it stands reads the replica that the leader names, and the leader again where that fails.

Source: KIP-392. Two brokers over TCP, of which the first leads; they have the same log.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

import zafka
from tests.unit.client_fake_broker import FakeBroker
from tests.unit.test_client_consumer import fill, offsets
from zafka.client.errors import ConfigError
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages import FetchResponse
from zafka.transport.kafka.messages.fetch import FetchableTopicResponse, PartitionData
from zafka.transport.kafka.messages.metadata import MetadataResponseBroker

LEADER, NEAR = 1, 2


class Leader(FakeBroker):
    """It sends those who stand at rack "near" to the other one."""

    near: FakeBroker

    def _metadata(self, request: Any, fault: Any) -> Any:
        answer = super()._metadata(request, fault)
        answer.brokers.append(MetadataResponseBroker(NEAR, "127.0.0.1", self.near.port, "near"))
        return answer

    def _fetch(self, request: Any, fault: Any) -> Any:
        if request.rack_id != "near" or fault is not None:
            return super()._fetch(request, fault)
        return FetchResponse(responses=[
            FetchableTopicResponse(topic=topic.topic, partitions=[
                PartitionData(part.partition, preferred_read_replica=NEAR, records=memoryview(b""))
                for part in topic.partitions])
            for topic in request.topics])


@pytest.fixture
def brokers() -> Iterator[tuple[Leader, FakeBroker]]:
    with Leader({"one": 1}) as leader, FakeBroker({"one": 1}) as near:
        leader.near = near
        near.topics = leader.topics
        fill(leader.topics["one"][0], 30)
        yield leader, near


def fetches(broker: FakeBroker) -> int:
    return sum(api is ApiKey.FETCH for api, _ in broker.requests)


def consume(broker: FakeBroker, **options: Any) -> zafka.Consumer:
    return zafka.Consumer("one", bootstrap_servers=broker.address, auto_offset_reset="earliest", **options)


def test_the_replica_that_the_leader_names_is_read(brokers: tuple[Leader, FakeBroker]) -> None:
    leader, near = brokers
    with consume(leader, client_rack="near") as consumer:
        assert offsets(list(consumer.records(timeout=0.2))) == list(range(30))
        asked = fetches(leader)
        fill(leader.topics["one"][0], 10)
        assert len(consumer.poll(20.0)) == 10
    assert fetches(near) > 1 and fetches(leader) == asked
    with consume(leader) as consumer:
        asked = fetches(near)
        assert len(consumer.poll(20.0)) == 40
    assert fetches(near) == asked


@pytest.mark.parametrize("fault", [
    ErrorCode.OFFSET_OUT_OF_RANGE, ErrorCode.NOT_LEADER_OR_FOLLOWER, ErrorCode.UNKNOWN_TOPIC_ID, "drop"])
def test_what_the_replica_refuses_is_asked_of_the_leader_again(brokers: tuple[Leader, FakeBroker], fault: Any) -> None:
    """Also an offset that the replica does not have yet: the reader's position stays."""
    leader, near = brokers
    left = 2

    def once_more(api: ApiKey, when: str) -> str | int | None:
        nonlocal left
        if api is not ApiKey.FETCH or when != "before" or not left:
            return None
        left -= 1
        return fault  # type: ignore[no-any-return]

    near.fault = once_more
    with consume(leader, client_rack="near") as consumer:
        assert offsets(list(consumer.records(timeout=1.0))) == list(range(30))
    assert fetches(leader) >= 3 and not left


def test_the_leader_is_asked_now_and_then(brokers: tuple[Leader, FakeBroker]) -> None:
    leader, _ = brokers
    with consume(leader, client_rack="near", metadata_max_age=0.05) as consumer:
        for _ in range(500):
            assert consumer.poll(20.0)
            if fetches(leader) >= 3:
                return
            fill(leader.topics["one"][0], 10)
            threading.Event().wait(0.02)
    pytest.fail("a replica that was named once is read for ever")


def test_a_rack_is_a_name(brokers: tuple[Leader, FakeBroker]) -> None:
    with pytest.raises(ConfigError, match="client_rack must be a name such as 'eu-1a', not ''"):
        consume(brokers[0], client_rack="")
