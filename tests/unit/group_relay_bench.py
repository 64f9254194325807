"""A broker whose group coordinators are the test: what goes to them, and what comes back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.unit.broker_bench import Bench
from zafka.actors.actor import Peer
from zafka.actors.gateway.group_relay import GROUP_TOPIC, partition_of
from zafka.actors.messages import GroupAnswer, GroupAnswers, GroupCall, GroupRequests
from zafka.transport.kafka import messages as kafka
from zafka.transport.kafka.codec import request_reader, response_writer
from zafka.transport.kafka.messages import offset_commit

G, H = partition_of("g", 4), partition_of("h", 4)


class Groups(Bench):
    """A broker with the topic t (2 partitions) and four group coordinators."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.start("t")
        self.create(GROUP_TOPIC, partitions=4)
        for number in range(4):
            self.serve(GROUP_TOPIC, number)

    def asked(self) -> list[tuple[Peer, GroupCall, Any]]:
        """What coordinators were asked in the last turn: by whom, how, and what."""
        found = []
        for send in self.sends(GroupRequests):
            records, position = memoryview(b"".join(send.records)), 0
            for call in send.body.calls:
                body = records[position:position + call.size]
                found.append((send.to, call, request_reader(call.api_key, call.version)(body, 0)))
                position += call.size
        return found

    def answer(self, peer: Peer, call: GroupCall, response: Any, error: int = 0) -> None:
        body = b"" if error else b"".join(response_writer(call.api_key, call.version)(response))
        self.tell(peer, GroupAnswers([GroupAnswer(call.request_id, error, len(body))]), records=body)


def commit(*topics: tuple[str, bytes, int], group: str = "g") -> kafka.OffsetCommitRequest:
    return kafka.OffsetCommitRequest(group, topics=[
        offset_commit.OffsetCommitRequestTopic(topic_id, name, [offset_commit.OffsetCommitRequestPartition(number, 5)])
        for name, topic_id, number in topics])


def committed(*topics: str) -> kafka.OffsetCommitResponse:
    return kafka.OffsetCommitResponse(topics=[
        offset_commit.OffsetCommitResponseTopic(name=name, partitions=[offset_commit.OffsetCommitResponsePartition(0, 0)])
        for name in topics])
