"""How long a group is without its coordinator when that is killed while members join, while they sync, and while they commit.

Owns: `Member`, a member of a classic group on a connection of its own, that does what Kafka's clients do on each error; and
`recovery_s`. What a member adds by itself: it hears of a rebalance with its next heartbeat, and waits a little before it
asks a coordinator again that is not there. `offsets_start_s`: how long a coordinator with many offsets takes to start.
"""

from __future__ import annotations

import itertools
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from zafka.actors.groups.coordinator import build, make_machine
from zafka.actors.groups.records import OffsetCommitValue
from zafka.actors.replica import open_replica
from zafka.actors.shell import read_clock
from zafka.actors.start import PartitionStart
from zafka.storage.config import parse_config
from zafka.storage.disk import PosixDisk, sync
from zafka.storage.snapshot import SnapshotWriter, point_of
from zafka.testing import Broker
from zafka.transport.kafka import messages as kafka
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.codec import (
    read_response_header,
    request_header,
    request_writer,
    response_reader,
    with_length,
)
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages.find_coordinator import FindCoordinatorRequest
from zafka.transport.kafka.messages.heartbeat import HeartbeatRequest
from zafka.transport.kafka.messages.join_group import JoinGroupRequest, JoinGroupRequestProtocol
from zafka.transport.kafka.messages.offset_commit import OffsetCommitRequestPartition, OffsetCommitRequestTopic
from zafka.transport.kafka.messages.sync_group import SyncGroupRequest, SyncGroupRequestAssignment

MEMBERS = 5
HEARTBEAT_S = 0.3
RETRY_S = 0.1  # librdkafka's and Java's retry.backoff.ms
SESSION_MS, REBALANCE_MS = 30_000, 60_000  # long, so that nothing comes right by their ending
GIVE_UP_S = 60.0
COORDINATORS = "partition __consumer_offsets-*"
PHASES = ("join", "sync", "commit")
NEXT_COORDINATOR = (
    ErrorCode.COORDINATOR_LOAD_IN_PROGRESS, ErrorCode.COORDINATOR_NOT_AVAILABLE, ErrorCode.NOT_COORDINATOR)


class Member:
    """may_sync: it waits for this before it syncs. joined: the generations that it was told of, and whether it led."""

    def __init__(self, bootstrap: str, group: str) -> None:
        host, _, port = bootstrap.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), GIVE_UP_S)
        self._numbers = itertools.count(1)
        self.group = group
        self.member_id = ""
        self.generation = -1
        self.may_sync = threading.Event()
        self.may_sync.set()
        self.joined: dict[int, bool] = {}
        self._members: list[str] = []  # if it leads

    def close(self) -> None:
        self._socket.close()

    def ask(self, api: ApiKey, version: int, request: Any) -> Any:
        number = next(self._numbers)
        body = request_writer(api, version)(request)
        self._socket.sendall(b"".join(with_length(request_header(api, version, number, "bench"), body)))
        frame = memoryview(self._bytes(int.from_bytes(self._bytes(4), "big")))
        _, position = read_response_header(frame, api, version)
        return response_reader(api, version)(frame, position)

    def _bytes(self, count: int) -> bytes:
        data = self._socket.recv(count, socket.MSG_WAITALL)
        if len(data) < count:
            raise ConnectionResetError
        return data

    def find(self) -> None:
        while self.ask(ApiKey.FIND_COORDINATOR, 1, FindCoordinatorRequest(self.group)).error_code:
            time.sleep(RETRY_S)

    def settle(self) -> None:
        """Join and sync until it has a share of a generation."""
        while not (self._join() and self._sync()):
            pass

    def _join(self) -> bool:
        answer = self.ask(ApiKey.JOIN_GROUP, 5, JoinGroupRequest(
            self.group, SESSION_MS, REBALANCE_MS, self.member_id, None, "consumer", [JoinGroupRequestProtocol("range", b"")]))
        error = answer.error_code
        if not error:
            self.member_id, self.generation = answer.member_id, answer.generation_id
            self.joined[self.generation] = answer.leader == answer.member_id
            self._members = [each.member_id for each in answer.members]
        elif error == ErrorCode.MEMBER_ID_REQUIRED:
            self.member_id = answer.member_id
        else:
            self._give_way(error)
        return not error

    def _sync(self) -> bool:
        self.may_sync.wait(GIVE_UP_S)
        answer = self.ask(ApiKey.SYNC_GROUP, 3, SyncGroupRequest(
            self.group, self.generation, self.member_id,
            assignments=[SyncGroupRequestAssignment(each, b"a share") for each in self._members]))
        if answer.error_code:
            self._give_way(answer.error_code)
        return bool(answer.assignment)

    def heartbeat(self) -> int:
        error: int = self.ask(ApiKey.HEARTBEAT, 3, HeartbeatRequest(self.group, self.generation, self.member_id)).error_code
        return error

    def live(self, ended: threading.Event) -> None:
        self.settle()
        self.stay(ended)

    def stay(self, ended: threading.Event) -> None:
        """Be a member: heartbeats, and joining again when they say so."""
        while not ended.wait(HEARTBEAT_S):
            error = self.heartbeat()
            if error and error not in NEXT_COORDINATOR:
                self._give_way(error)
                self.settle()

    def commit(self, offset: int) -> int:
        topic = OffsetCommitRequestTopic(name="orders", partitions=[OffsetCommitRequestPartition(0, offset)])
        request = kafka.OffsetCommitRequest(self.group, self.generation, self.member_id, topics=[topic])
        error: int = self.ask(ApiKey.OFFSET_COMMIT, 7, request).topics[0].partitions[0].error_code
        return error

    def _give_way(self, error: int) -> None:
        if error == ErrorCode.UNKNOWN_MEMBER_ID:
            self.member_id = ""
        elif error in NEXT_COORDINATOR:
            time.sleep(RETRY_S)
            self.find()
        elif error not in (ErrorCode.REBALANCE_IN_PROGRESS, ErrorCode.ILLEGAL_GENERATION):
            raise RuntimeError(f"{self.group}: {ErrorCode(error).name}")


def offsets_start_s(count: int, *, per_group: int = 100) -> float:
    """From a snapshot with so many offsets, each of a partition of its own; the recovery of the log, which is empty, included."""
    directory = Path(tempfile.mkdtemp(prefix="bench-offsets-"))
    disk, now = PosixDisk(), read_clock()
    start = PartitionStart(1, "__consumer_offsets", 0, bytes(16), str(directory / "__consumer_offsets-0"), {})
    try:
        replica = open_replica(Path(start.directory), start.topic_id, parse_config({}), disk, now, lambda: None)
        machine = make_machine({})
        for group in range(count // per_group):
            machine.offsets.restore([(f"group-{group}", "orders", {
                number: OffsetCommitValue(group + number, 1, "", now.wall_ms) for number in range(per_group)})])
        sections = (section for section, _ in machine.sections())
        writer = SnapshotWriter(disk, replica.log.directory, sections, lambda: point_of(replica.log, 0))
        while step := writer.step():
            sync(disk, *step.files, directories=step.directories)
        replica.release()
        began_s = time.perf_counter()
        build(start, disk, now, lambda: None)
        return time.perf_counter() - began_s
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def recovering_broker() -> Iterator[Broker]:
    """One whose coordinators may be killed as often as it takes, and on which groups begin at once."""
    with Broker(
        topics={"orders": 3}, topology={"supervision": {"intensity": 1_000_000}},
        defaults={"group.initial.rebalance.delay.ms": 0},
    ) as broker:
        yield broker


def recovery_s(broker: Broker, phase: str, group: str) -> float:
    """From the kill of all coordinators until all is as it was to be: for "join" and "sync" a group of four that takes in a
    fifth, all of one generation with their shares; for "commit" the next commit that is taken."""
    members = [Member(broker.bootstrap_servers, group) for _ in range(MEMBERS)]
    ended = threading.Event()
    try:
        members[0].find()
        with ThreadPoolExecutor(MEMBERS) as pool:
            try:
                _gather(broker, members[:-1], pool)
                return _commits(broker, members[0]) if phase == "commit" else _joins(broker, phase, members, pool, ended)
            finally:
                ended.set()
                for member in members:
                    member.may_sync.set()
    finally:
        for member in members:
            member.close()


def _gather(broker: Broker, members: list[Member], pool: ThreadPoolExecutor) -> None:
    """Have these be a stable group. They live until they are: who came first must hear of those who come later."""
    gathered = threading.Event()
    lives = [pool.submit(member.live, gathered) for member in members]
    try:
        _wait_for(lives, lambda: _are_whole(broker, members))
    finally:
        gathered.set()
    for each in lives:
        each.result(GIVE_UP_S)


def _are_whole(broker: Broker, members: list[Member]) -> bool:
    """All of them, and nobody else, in one generation."""
    return len({member.generation for member in members}) == 1 and (
        describe(members[0].group, broker) == f"Stable {len(members)}")


def _joins(
    broker: Broker, phase: str, members: list[Member], pool: ThreadPoolExecutor, ended: threading.Event
) -> float:
    *others, last = members
    generation = others[0].generation
    lives = [pool.submit(last.live, ended)]
    _wait_for(lives, lambda: others[0].heartbeat() == ErrorCode.REBALANCE_IN_PROGRESS)
    if phase == "sync":
        for member in members:
            member.may_sync.clear()
        lives += [pool.submit(member.live, ended) for member in others]
        _wait_for(lives, lambda: all(member.generation > generation for member in members))
        for member in members:
            if not member.joined[member.generation]:
                member.may_sync.set()  # all but the leader, which keeps them waiting
        _wait_for(lives, lambda: describe(others[0].group, broker) == "CompletingRebalance")
    began_s = time.perf_counter()
    broker.kill(COORDINATORS)
    for member in members:
        member.may_sync.set()
    if phase == "join":
        lives += [pool.submit(member.stay, ended) for member in others]
    _wait_for(lives, lambda: _are_whole(broker, members))
    took_s = time.perf_counter() - began_s
    ended.set()
    for each in lives:
        each.result(GIVE_UP_S)
    return took_s


def _commits(broker: Broker, member: Member) -> float:
    for offset in range(10):
        assert not member.commit(offset)
    began_s = time.perf_counter()
    broker.kill(COORDINATORS)
    while error := member.commit(10):
        member._give_way(error)
    return time.perf_counter() - began_s


def describe(group: str, broker: Broker) -> str:
    """A group's state, and behind Stable how many members it has."""
    asking = Member(broker.bootstrap_servers, group)
    try:
        (found,) = asking.ask(ApiKey.DESCRIBE_GROUPS, 4, kafka.DescribeGroupsRequest([group])).groups
    finally:
        asking.close()
    state: str = found.group_state
    return f"{state} {len(found.members)}" if state == "Stable" else state


def _wait_for(lives: list[Future[None]], is_so: Callable[[], bool]) -> None:
    """Raises what a member has raised, who is waited for in vain."""
    gives_up_s = time.perf_counter() + GIVE_UP_S
    while not is_so():
        for each in lives:
            if each.done():
                each.result()
        if time.perf_counter() > gives_up_s:
            raise RuntimeError(f"not so within {GIVE_UP_S:g} s")
        time.sleep(0.01)
