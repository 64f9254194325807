"""Commits of offsets through one coordinator: how many a second, and how long each takes.

    python -m benchmarks.commits --members 100 --seconds 5

Starts a broker of its own. Each member is a connection that commits one partition's offset (OffsetCommit 7), and the next
as soon as that is answered, hence is on disk. All belong to one group, so that one coordinator takes them all.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time

import uvloop

from benchmarks.small import Client, Tally
from zafka.runtime.bench import percentile
from zafka.testing import Broker
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.codec import request_header, request_writer, with_length
from zafka.transport.kafka.messages.find_coordinator import FindCoordinatorRequest
from zafka.transport.kafka.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)

TOPIC, PARTITIONS, GROUP = "orders", 4, "committing"
VERSION = 7
ERROR_AT = 4 + 4 + 4 + 4 + 2 + len(TOPIC) + 4 + 4
"""In an answer: behind length, correlation id, throttle time, topics, the name, partitions, index."""
SETTLING_S = 0.5


def commit_frame(member: int) -> bytearray:
    """A whole request with its length."""
    part = OffsetCommitRequestPartition(member % PARTITIONS, 1_000_000 + member, -1, f"of member {member}")
    request = OffsetCommitRequest(GROUP, topics=[OffsetCommitRequestTopic(name=TOPIC, partitions=[part])])
    header = request_header(ApiKey.OFFSET_COMMIT, VERSION, 0, f"member-{member}")
    return bytearray(b"".join(with_length(header, request_writer(ApiKey.OFFSET_COMMIT, VERSION)(request))))


class Member(Client):
    def __init__(self, member: int, tally: Tally) -> None:
        super().__init__(TOPIC, 0, 1, tally)
        self._frame = commit_frame(member)
        self._error_at = ERROR_AT


async def find_coordinator(host: str, port: int) -> None:
    """Have the coordinators created, and wait for ours."""
    reader, writer = await asyncio.open_connection(host, port)
    request = request_writer(ApiKey.FIND_COORDINATOR, 0)(FindCoordinatorRequest(GROUP))
    writer.writelines(map(bytes, with_length(request_header(ApiKey.FIND_COORDINATOR, 0, 1, "commits"), request)))
    await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big"))
    writer.close()


async def measure(bootstrap: str, members: int, seconds: float) -> dict[str, float]:
    host, _, port = bootstrap.rpartition(":")
    await find_coordinator(host, int(port))
    tally = Tally()
    loop = asyncio.get_running_loop()
    clients = [
        (await loop.create_connection(lambda number=number: Member(number, tally), host, int(port)))  # type: ignore[misc]
        for number in range(members)]
    await asyncio.sleep(SETTLING_S)
    tally.requests, tally.taken_s, tally.errors = 0, [], {}
    begun_s = time.perf_counter()
    await asyncio.sleep(seconds)
    count, taken_s = tally.requests, sorted(tally.taken_s)
    lasted_s = time.perf_counter() - begun_s
    for transport, member in clients:
        member.stopped = True
        transport.close()
    assert not tally.errors, tally.errors
    return {
        "members": members, "commits_per_s": round(count / lasted_s), "p50_ms": round(1000 * percentile(taken_s, 0.5), 2),
        "p99_ms": round(1000 * percentile(taken_s, 0.99), 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--members", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=5.0)
    arguments = parser.parse_args()
    with Broker(topics={TOPIC: PARTITIONS}, allow_faults=False) as broker:
        told = uvloop.run(measure(broker.bootstrap_servers, arguments.members, arguments.seconds))
    print(json.dumps(told))


if __name__ == "__main__":
    main()
