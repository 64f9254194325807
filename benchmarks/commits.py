"""Commits of offsets by the members of one group: how many a second one coordinator takes, and how long each takes.

    python -m benchmarks.commits [HOST:PORT TOPIC GROUP] --members 100 --seconds 5

Without an address it starts a zafka of its own. Every member has a connection, joins (JoinGroup, SyncGroup), and once all
are in one generation commits one partition's offset with that generation and its member id (OffsetCommit 7), and the
next as soon as that is answered, hence is on disk; a heartbeat goes between every few seconds.
Owns: `Member`, a connection until the group is settled; `Committer`, what it does from then on. Every error code is looked
at: one in a commit or a heartbeat, as of a member that is fenced, fails the measurement.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from typing import Any

import uvloop

from benchmarks.small import Client, Tally
from zafka.client.group_protocol import CONSUMER, Subscription, encode_subscription
from zafka.runtime.bench import percentile
from zafka.testing import Broker
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
from zafka.transport.kafka.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from zafka.transport.kafka.messages.sync_group import SyncGroupRequest, SyncGroupRequestAssignment

PARTITIONS = 4
VERSIONS = {
    ApiKey.FIND_COORDINATOR: 0, ApiKey.JOIN_GROUP: 5, ApiKey.SYNC_GROUP: 3, ApiKey.HEARTBEAT: 3, ApiKey.OFFSET_COMMIT: 7}
SESSION_MS, REBALANCE_MS = 45_000, 60_000
HEARTBEAT_S = 3.0
SETTLED_LOOK_S = 0.05
GIVE_UP_S = 60.0
SETTLING_S = 0.5
HEARTBEAT_ERROR_AT = 4 + 4 + 4  # in an answer: behind length, correlation id, throttle time
NOT_SETTLED = (ErrorCode.REBALANCE_IN_PROGRESS, ErrorCode.ILLEGAL_GENERATION)
NOT_YET = (ErrorCode.COORDINATOR_NOT_AVAILABLE, ErrorCode.NOT_COORDINATOR, ErrorCode.COORDINATOR_LOAD_IN_PROGRESS)


def frame_of(api: ApiKey, request: Any) -> bytearray:
    """A whole request with its length."""
    return bytearray(b"".join(
        with_length(request_header(api, VERSIONS[api], 0, "member"), request_writer(api, VERSIONS[api])(request))))


class Member:
    """One member on its way into the group. generation: -1 while it is in none."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, group: str, topic: str) -> None:
        self.group = group
        self.id = ""
        self.generation = -1
        self.writer = writer
        self._reader = reader
        self._subscription = encode_subscription(Subscription((topic,)))

    async def settle(self, members: list[Member]) -> None:
        """Be in the group until all are in the same generation of it."""
        while len(generations := {member.generation for member in members}) > 1 or -1 in generations:
            if self.generation < 0:
                await self._join()
            else:
                await asyncio.sleep(SETTLED_LOOK_S)
                answer = await self._ask(ApiKey.HEARTBEAT, HeartbeatRequest(self.group, self.generation, self.id))
                if answer.error_code in NOT_SETTLED:
                    self.generation = -1
                else:
                    _check("heartbeat", answer.error_code)

    async def _join(self) -> None:
        joined = await self._ask(ApiKey.JOIN_GROUP, JoinGroupRequest(
            self.group, SESSION_MS, REBALANCE_MS, self.id, protocol_type=CONSUMER,
            protocols=[JoinGroupRequestProtocol("range", self._subscription)]))
        if joined.error_code == ErrorCode.MEMBER_ID_REQUIRED:
            self.id = joined.member_id
        if joined.error_code in (ErrorCode.MEMBER_ID_REQUIRED, *NOT_SETTLED, *NOT_YET):
            return
        _check("join", joined.error_code)
        self.id = joined.member_id
        # Nobody reads here: what the leader hands out is of no matter, but that it does.
        assignments = [SyncGroupRequestAssignment(each.member_id, b"") for each in joined.members]
        synced = await self._ask(
            ApiKey.SYNC_GROUP, SyncGroupRequest(self.group, joined.generation_id, self.id, assignments=assignments))
        if synced.error_code not in NOT_SETTLED:
            _check("sync", synced.error_code)
            self.generation = joined.generation_id

    async def find_coordinator(self) -> None:
        """Have the coordinators created, and wait for ours."""
        deadline_s = time.monotonic() + GIVE_UP_S
        while (found := await self._ask(ApiKey.FIND_COORDINATOR, FindCoordinatorRequest(self.group))).error_code in NOT_YET:
            assert time.monotonic() < deadline_s, "there is no coordinator"
            await asyncio.sleep(SETTLED_LOOK_S)
        _check("find coordinator", found.error_code)

    async def _ask(self, api: ApiKey, request: Any) -> Any:
        self.writer.write(frame_of(api, request))
        size = int.from_bytes(await self._reader.readexactly(4), "big")
        answer = memoryview(await self._reader.readexactly(size))
        _, position = read_response_header(answer, api, VERSIONS[api])
        return response_reader(api, VERSIONS[api])(answer, position)


def _check(what: str, error: int) -> None:
    if error:
        raise RuntimeError(f"{what}: error {error}")


class Committer(Client):
    """A settled member: one commit on the way at any time, or a heartbeat when that is due."""

    def __init__(self, number: int, member: Member, topic: str, tally: Tally) -> None:
        super().__init__(topic, 0, 1, tally)
        part = OffsetCommitRequestPartition(number % PARTITIONS, 1_000_000 + number, -1, f"of member {number}")
        self._commit = frame_of(ApiKey.OFFSET_COMMIT, OffsetCommitRequest(
            member.group, member.generation, member.id,
            topics=[OffsetCommitRequestTopic(name=topic, partitions=[part])]))
        self._heartbeat = frame_of(ApiKey.HEARTBEAT, HeartbeatRequest(member.group, member.generation, member.id))
        # Length, correlation id, throttle time, topics, the name, partitions, index.
        self._commit_error_at = 4 + 4 + 4 + 4 + 2 + len(topic.encode()) + 4 + 4
        self._heartbeat_s = time.perf_counter() + HEARTBEAT_S

    def _send(self, count: int, now_s: float) -> None:
        beats = now_s >= self._heartbeat_s
        if beats:
            self._heartbeat_s = now_s + HEARTBEAT_S
            self._tally.requests -= 1  # it is no commit
        self._frame = self._heartbeat if beats else self._commit
        self._error_at = HEARTBEAT_ERROR_AT if beats else self._commit_error_at
        super()._send(count, now_s)


async def measure(address: str, topic: str, group: str, *, members: int, seconds: float) -> dict[str, float]:
    host, _, port = address.rpartition(":")
    joining = [
        Member(*await asyncio.open_connection(host, int(port)), group=group, topic=topic) for _ in range(members)]
    await joining[0].find_coordinator()
    began_s = time.perf_counter()
    await asyncio.wait_for(asyncio.gather(*(member.settle(joining) for member in joining)), GIVE_UP_S)
    settled_s = time.perf_counter() - began_s
    tally = Tally()
    committers = [Committer(number, member, topic, tally) for number, member in enumerate(joining)]
    for member, committer in zip(joining, committers, strict=True):
        member.writer.transport.set_protocol(committer)
        committer.connection_made(member.writer.transport)
    await asyncio.sleep(SETTLING_S)
    tally.requests, tally.taken_s = 0, []
    begun_s = time.perf_counter()
    await asyncio.sleep(seconds)
    count, taken_s, lasted_s = tally.requests, sorted(tally.taken_s), time.perf_counter() - begun_s
    lost = [committer.lost for committer in committers if committer.lost]
    for committer in committers:
        committer.stop()
    if tally.errors or lost or not count:
        raise RuntimeError(f"{count} commits, error codes {tally.errors}, {len(lost)} connections lost: {lost[:1]}")
    return {
        "members": members, "settled_s": settled_s, "commits_per_s": count / lasted_s,
        "p50_ms": 1000 * percentile(taken_s, 0.5), "p99_ms": 1000 * percentile(taken_s, 0.99)}


def run(address: str, topic: str, group: str, *, members: int, seconds: float) -> Any:
    """The members in a process of their own; what they measured."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.commits", address, topic, group, "--members", str(members), "--seconds", str(seconds)],
        capture_output=True, text=True, check=False, timeout=seconds + 2 * GIVE_UP_S)
    if done.returncode:
        raise RuntimeError(f"the members failed: {done.stderr[-2000:]}")
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address", nargs="?")
    parser.add_argument("topic", nargs="?", default="orders")
    parser.add_argument("group", nargs="?", default="committing")
    parser.add_argument("--members", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=5.0)
    given = parser.parse_args()

    def told(address: str) -> dict[str, float]:
        return uvloop.run(measure(address, given.topic, given.group, members=given.members, seconds=given.seconds))

    if given.address:
        print(json.dumps(told(given.address)))
        return
    with Broker(topics={given.topic: PARTITIONS}, allow_faults=False) as broker:
        print(json.dumps(told(broker.bootstrap_servers)))


if __name__ == "__main__":
    main()
