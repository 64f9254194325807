"""A group coordinator with the mail that its broker and its supervisor send: requests in, answers out, as structs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.unit.disks import FullableDisk
from tests.unit.drive import Drive, bodies
from zafka.actors.actor import Effect, Flushed, Mail, Now, Peer, Send
from zafka.actors.groups.coordinator import GroupCoordinatorActor, MakeMachine, build, make_machine
from zafka.actors.messages import ActorUp, BecomeLeader, GroupAnswers, GroupCall, GroupRequests, TopicsTold
from zafka.actors.start import PartitionStart
from zafka.storage.disk import Disk
from zafka.transport.kafka import messages as kafka
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.codec import request_writer, response_reader
from zafka.transport.kafka.messages import offset_commit, offset_fetch

BROKER = Peer("broker 1", 3)
SUPERVISOR = Peer("supervisor", 1)
TOPIC_ID = b"consumer-offsets"
NOW_MS = 1_700_000_000_000
ORDERS = ("orders", b"o" * 16, 3)
NOTHING = -1  # committed


class Coordinator(Drive):
    """The coordinator of one partition. Restart it by making another one of the same directory and disk."""

    def __init__(
        self, directory: Path, *, disk: Disk | None = None, make: MakeMachine = make_machine, auto_flush: bool = True,
        **config: str,
    ) -> None:
        self.directory = directory / "__consumer_offsets-0"
        self.config = {key.replace("_", "."): value for key, value in config.items()}
        self.disk = disk or FullableDisk()
        start = PartitionStart(1, "__consumer_offsets", 0, TOPIC_ID, str(self.directory), self.config)
        super().__init__(
            build(start, self.disk, Now(100.0, NOW_MS), lambda: None, make), wall_ms=NOW_MS, auto_flush=auto_flush)
        self._next_id = 0
        self._asked: dict[int, tuple[int, int]] = {}

    def _settle(self) -> None:
        """Flushes are those of the disk."""
        while self.flushes and self.auto_flush:
            flush = self.flushes[0]
            for file in flush.files:
                self.disk.fdatasync(file)
            for directory in flush.directories:
                self.disk.fsync_dir(directory)
            self._tell(Flushed(self.flushes.pop(0).token))

    @property
    def coordinator(self) -> GroupCoordinatorActor:
        assert isinstance(self.actor, GroupCoordinatorActor)
        return self.actor

    def lead(self, epoch: int = 0, *topics: tuple[str, bytes, int]) -> Coordinator:
        """Take the actor to where it serves."""
        self.start()
        self.send(SUPERVISOR, ActorUp(BROKER.name, BROKER.incarnation, "ipc://somewhere"))
        self.send(BROKER, BecomeLeader(epoch, self.config))
        self.send(BROKER, TopicsTold(list(topics or (ORDERS,))))
        return self

    def mail(self, api: ApiKey, version: int, request: Any, *, sender: Peer = BROKER) -> Mail:
        body = b"".join(request_writer(api, version)(request))
        self._next_id += 1
        self._asked[self._next_id] = (api, version)
        call = GroupCall(self._next_id, api, version, "client", "/127.0.0.1", len(body))
        return Mail(sender, GroupRequests([call]), memoryview(body))

    def ask(self, api: ApiKey, version: int, request: Any) -> Any:
        """The one answer that comes in the same turn, or an error's number where there is none."""
        (answer,) = self.answers(self.turn(self.mail(api, version, request)))
        return answer

    def answers(self, effects: list[Effect]) -> list[Any]:
        """Decoded; an int is the error of which the broker makes an answer."""
        found: list[Any] = []
        for effect in effects:
            if isinstance(effect, Send) and isinstance(effect.body, GroupAnswers):
                records, position = memoryview(b"".join(effect.records)), 0
                for answer in effect.body.answers:
                    api, version = self._asked.pop(answer.request_id)
                    body = records[position:position + answer.size]
                    found.append(answer.error or response_reader(api, version)(body, 0))
                    position += answer.size
                assert position == len(records)
        return found

    def commit(self, group: str, offset: int, *, topic: str = "orders", partition: int = 0, version: int = 9,
               **fields: Any) -> int:
        """The error of the one partition."""
        answer = self.ask(ApiKey.OFFSET_COMMIT, version, commit(group, offset, topic=topic, partition=partition, **fields))
        error: int = answer.topics[0].partitions[0].error_code
        return error

    def fetch(self, group: str, *, topic: str = "orders", partition: int = 0) -> int:
        asked = kafka.OffsetFetchRequestGroup(group, topics=[
            kafka.OffsetFetchRequestTopics(name=topic, partition_indexes=[partition])])
        (found,) = self.ask(ApiKey.OFFSET_FETCH, 9, kafka.OffsetFetchRequest([asked])).groups
        assert found.error_code == 0
        offset: int = found.topics[0].partitions[0].committed_offset
        return offset

    def fetch_all(self, group: str) -> dict[tuple[str, int], offset_fetch.OffsetFetchResponsePartitions]:
        asked = kafka.OffsetFetchRequest([kafka.OffsetFetchRequestGroup(group, topics=None)])
        (found,) = self.ask(ApiKey.OFFSET_FETCH, 9, asked).groups
        return {(topic.name, part.partition_index): part for topic in found.topics for part in topic.partitions}


def commit(
    group: str, offset: int, *, topic: str = "orders", partition: int = 0, metadata: str | None = "", epoch: int = -1,
    **fields: Any,
) -> kafka.OffsetCommitRequest:
    part = offset_commit.OffsetCommitRequestPartition(partition, offset, epoch, metadata)
    return kafka.OffsetCommitRequest(
        group, topics=[offset_commit.OffsetCommitRequestTopic(name=topic, partitions=[part])], **fields)


def advanced(effects: list[Effect]) -> list[Any]:
    """What readers may see, as it was told with answers."""
    return [body.advanced for body in bodies(effects, GroupAnswers) if body.advanced is not None]
