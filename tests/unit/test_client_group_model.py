"""Several memberships of our client against the real coordinator, in any order of events; the seed says which.

Readers are slow, answers are lost, time passes, members leave and coordinators restart. In all of it no two whom the
coordinator knows have a partition at once; afterwards everything is shared evenly.
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest

from tests.unit.drive import bodies
from tests.unit.drive_groups import Coordinator
from zafka.actors.actor import Effect
from zafka.actors.messages import GroupAnswers
from zafka.client.channel import OUR_VERSIONS
from zafka.client.errors import ConnectionLost
from zafka.client.group import (
    CLASSIC,
    CONSUMER,
    Adopt,
    Failed,
    GoClassic,
    GroupOptions,
    KnownTopic,
    Lost,
    Membership,
    Phase,
    Prepare,
    Request,
)
from zafka.client.group_classic import ClassicMembership
from zafka.client.group_consumer import ConsumerMembership
from zafka.client.records import TopicPartition
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.messages import (
    Coordinator as FoundCoordinator,
    DescribeGroupsRequest,
    FindCoordinatorResponse,
)
from zafka.transport.kafka.messages.consumer_group_describe import ConsumerGroupDescribeRequest

PARTITIONS = 7
ORDERS = ("orders", b"o" * 16, PARTITIONS)
EVERYTHING = {TopicPartition("orders", number) for number in range(PARTITIONS)}


class Reader:
    """A membership and the reader's side of it. owned: what it reads now."""

    def __init__(self, options: GroupOptions, now_s: float, member_id: str) -> None:
        self.membership: Membership = (
            ClassicMembership(options, ("orders",), now_s) if options.protocol == CLASSIC
            else ConsumerMembership(options, ("orders",), now_s, member_id))
        self.membership.on_topics({"orders": KnownTopic(PARTITIONS, ORDERS[1])}, now_s)
        self.owned: frozenset[TopicPartition] = frozenset()

    def read(self, now_s: float) -> None:
        """Do one task, as `GroupMember` does."""
        membership = self.membership
        membership.polled(now_s)
        if not membership.tasks or membership.phase is Phase.LEAVING:
            return
        task = membership.tasks.popleft()
        assert not isinstance(task, GoClassic | Failed), task
        if isinstance(task, Prepare):
            self.owned = self.owned if membership.options.cooperative else frozenset()
            membership.prepared(task.round, self.owned)
        elif isinstance(task, Lost):
            self.owned = frozenset()
            membership.prepared(task.round, self.owned)
        else:
            assert isinstance(task, Adopt)
            gave_up = bool(self.owned - task.partitions)
            self.owned = task.partitions
            membership.adopted(task, gave_up)


class World:
    """protocols: of which each member speaks one, with this strategy if it is the classic one."""

    def __init__(self, directory: Path, strategy: str, protocols: tuple[str, ...], choice: random.Random) -> None:
        self.directory, self.choice = directory, choice
        self.options = [
            GroupOptions(
                "g", None, (strategy,), session_timeout=10.0, heartbeat_interval=1.0, max_poll_interval=20.0,
                protocol=protocol)
            for protocol in protocols]
        self.joined = 0
        self.epoch = -1
        self.coordinator = self.started(None)
        self.readers: list[Reader] = []
        self.asked: dict[int, tuple[Reader, Request]] = {}

    def started(self, before: Coordinator | None) -> Coordinator:
        config = {"group_initial_rebalance_delay_ms": "500", "group_consumer_session_timeout_ms": "10000"}
        if before is not None:
            before.coordinator.replica.release()
        coordinator = Coordinator(self.directory, **config)
        if before is not None:
            coordinator.now = before.now
        self.epoch += 1
        return coordinator.lead(self.epoch, ORDERS)

    @property
    def now_s(self) -> float:
        return self.coordinator.now.monotonic_s

    def join(self) -> None:
        self.joined += 1
        self.readers.append(Reader(self.choice.choice(self.options), self.now_s, f"m{self.joined}"))

    def leave(self, reader: Reader) -> None:
        reader.owned = frozenset()
        reader.membership.leave()

    def ask(self, reader: Reader) -> None:
        membership = reader.membership
        while (request := membership.next_request(self.now_s)) is not None:
            if request.api_key is ApiKey.FIND_COORDINATOR:
                found = FindCoordinatorResponse(coordinators=[FoundCoordinator("g", 1)])
                membership.on_answer(request, found, None, self.now_s)
                continue
            mail = self.coordinator.mail(request.api_key, OUR_VERSIONS[request.api_key][1], request.message)
            number = self.coordinator._next_id
            self.asked[number] = reader, request
            self.take(self.coordinator.turn(mail))
            return

    def take(self, effects: list[Effect], lost: float = 0.05) -> None:
        numbers = [answer.request_id for body in bodies(effects, GroupAnswers) for answer in body.answers]
        for number, answer in zip(numbers, self.coordinator.answers(effects), strict=True):
            reader, request = self.asked.pop(number)
            if self.choice.random() < lost:
                reader.membership.on_answer(request, None, ConnectionLost("lost"), self.now_s)
            else:
                assert not isinstance(answer, int), answer
                reader.membership.on_answer(request, answer, None, self.now_s)

    def pass_time(self, seconds: float, lost: float = 0.05) -> None:
        self.take(self.coordinator.pass_time(seconds), lost)

    def restart(self) -> None:
        self.coordinator = self.started(self.coordinator)
        asked, self.asked = self.asked, {}
        for reader, request in asked.values():
            reader.membership.on_answer(request, None, ConnectionLost("restarted"), self.now_s)

    def step(self) -> None:
        choice = self.choice
        event = choice.random()
        if event < 0.03 and len(self.readers) < 5:
            self.join()
        elif event < 0.05 and self.readers:
            self.leave(choice.choice(self.readers))
        elif event < 0.06:
            self.restart()
        elif event < 0.3:
            self.pass_time(choice.choice([0.01, 0.3, 2.0, 6.0]))
        elif event < 0.6 and self.readers:
            choice.choice(self.readers).read(self.now_s)
        elif self.readers:
            self.ask(choice.choice(self.readers))
        self.readers = [reader for reader in self.readers if reader.membership.phase is not Phase.OVER]
        self.check()

    def known(self) -> set[str]:
        request = DescribeGroupsRequest(["g"])
        classic: Any = self.coordinator.ask(ApiKey.DESCRIBE_GROUPS, 5, request)
        consumer: Any = self.coordinator.ask(ApiKey.CONSUMER_GROUP_DESCRIBE, 1, ConsumerGroupDescribeRequest(["g"]))
        return {member.member_id for described in (classic, consumer) for member in described.groups[0].members}

    def check(self) -> None:
        known = self.known()
        owned = [
            where for reader in self.readers if reader.membership.identity.member_id in known for where in reader.owned]
        assert len(owned) == len(set(owned)), [(reader.membership, reader.owned) for reader in self.readers]

    def is_settled(self) -> bool:
        """Everybody has his share, and nobody has anything to do."""
        sizes = [len(reader.owned) for reader in self.readers]
        return (
            all(reader.membership.phase is Phase.STABLE and not reader.membership.tasks for reader in self.readers)
            and sum(sizes) == PARTITIONS and max(sizes) - min(sizes) <= 1)

    def settle(self) -> None:
        self.join()
        for _ in range(400):
            self.readers = [reader for reader in self.readers if reader.membership.phase is not Phase.OVER]
            for reader in self.readers:
                reader.read(self.now_s)
                self.ask(reader)
            self.pass_time(0.2, lost=0.0)
            self.check()
            if self.is_settled() and set().union(*(reader.owned for reader in self.readers)) == EVERYTHING:
                return
        raise AssertionError([(reader.membership, reader.owned) for reader in self.readers])


@pytest.mark.parametrize(("strategy", "protocols"), [
    ("range", (CLASSIC,)), ("sticky", (CLASSIC,)), ("cooperative-sticky", (CLASSIC,)), ("range", (CONSUMER,)),
    ("range", (CLASSIC, CONSUMER)), ("cooperative-sticky", (CLASSIC, CONSUMER))])
def test_nobody_shares_a_partition_whatever_happens(tmp_path: Path, strategy: str, protocols: tuple[str, ...]) -> None:
    seed = int(os.environ.get("SEED", "0")) or random.randrange(2**32)
    print("seed", seed)
    choice = random.Random(seed)
    joins = 0
    for number in range(4):
        world = World(tmp_path / str(number), strategy, protocols, choice)
        for _ in range(300):
            world.step()
        world.settle()
        joins += sum(reader.membership.joins for reader in world.readers)
    assert joins >= 4
