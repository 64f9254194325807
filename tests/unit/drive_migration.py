"""A coordinator, and members of one group that speak the one protocol or the other, as clients of Kafka do."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from tests.unit.drive import bodies
from tests.unit.drive_groups import Coordinator
from zafka.actors.actor import Effect, Mail
from zafka.actors.groups.classic import ClassicGroups
from zafka.actors.groups.classic_group import ClassicGroup
from zafka.actors.groups.embedded import read_assignment, write_assignment
from zafka.actors.messages import GroupAnswers
from zafka.storage.disk import Disk
from zafka.transport.kafka import messages as kafka
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.messages.consumer_group_heartbeat import TopicPartitions

GROUP = "g"
ORDERS = ("orders", b"o" * 16, 6)
MORE = ("more", b"m" * 16, 2)
NAMES = {ORDERS[1]: ORDERS[0], MORE[1]: MORE[0]}


def subscription(
    *topics: str, owned: set[int] | None = None, version: int = 1, user_data: bytes | None = None, rack: str | None = None
) -> bytes:
    """owned: partitions of the first topic."""
    parts = [struct.pack(">hi", version, len(topics))]
    parts += [struct.pack(">h", len(topic)) + topic.encode() for topic in topics]
    parts.append(struct.pack(">i", -1) if user_data is None else struct.pack(">i", len(user_data)) + user_data)
    if version >= 1:
        parts.append(write_assignment(0, {topics[0]: owned} if owned else {})[2:-4])
    if version >= 2:
        parts.append(struct.pack(">i", -1))
    if version >= 3:
        parts.append(struct.pack(">h", -1) if rack is None else struct.pack(">h", len(rack)) + rack.encode())
    return b"".join(parts)


class Mixed(Coordinator):
    """The group's coordinator; `again` is its successor, which has the log and nothing else."""

    def __init__(self, directory: Path, *, disk: Disk | None = None, **config: str) -> None:
        settings = {"group_initial_rebalance_delay_ms": "0", "group_min_session_timeout_ms": "100"} | config
        self.replies: dict[int, Any] = {}
        super().__init__(directory, disk=disk, **settings)
        self.parent = directory
        self.given = config

    def again(self, epoch: int) -> Mixed:
        self.coordinator.replica.release()
        after = Mixed(self.parent, disk=self.disk, **self.given)
        after.lead(epoch, ORDERS, MORE)
        return after

    # -- answers, which may come in anybody's turn -----------------------------------------------

    def turn(self, *mails: Mail) -> list[Effect]:
        effects = super().turn(*mails)
        ids = [answer.request_id for body in bodies(effects, GroupAnswers) for answer in body.answers]
        self.replies |= zip(ids, self.answers(effects), strict=True)
        return effects

    def post(self, api: ApiKey, version: int, request: Any) -> int:
        """Send it; `replies` has the answer by this number when it has come."""
        self.turn(self.mail(api, version, request))
        return self._next_id

    def ask(self, api: ApiKey, version: int, request: Any) -> Any:
        return self.replies.pop(self.post(api, version, request))

    # -- classic -------------------------------------------------------------------------------

    def classic(self, member: str = "", **fields: Any) -> Classic:
        return Classic(self, member, **fields)

    def settle(self, *members: Classic) -> None:
        """They join, and the leader gives all partitions in turn."""
        for member in members:
            member.ask_to_join()
        self.pass_time(0.1)
        for member in members:
            member.take_join()
        ids = [member.member_id for member in members]
        shares = {each: set(range(number, ORDERS[2], len(ids))) for number, each in enumerate(ids)}
        for member in sorted(members, key=lambda member: member.leads):
            member.sync({each: write_assignment(1, {"orders": has}) for each, has in shares.items()})
        for member in members:
            member.take_sync()
            assert member.has == shares[member.member_id]

    # -- KIP-848 -------------------------------------------------------------------------------

    def beat(self, member: str, epoch: int, *, owned: set[int] | None = None, **said: Any) -> Any:
        parts = None if owned is None else [TopicPartitions(ORDERS[1], sorted(owned))]
        if epoch == 0:
            said = {"rebalance_timeout_ms": 5000, "subscribed_topic_names": ["orders"]} | said
            parts = []
        return self.ask(ApiKey.CONSUMER_GROUP_HEARTBEAT, 1, kafka.ConsumerGroupHeartbeatRequest(
            GROUP, member, epoch, topic_partitions=parts, **said))

    # -- what it is ----------------------------------------------------------------------------

    @property
    def kind(self) -> tuple[str, str]:
        (listed,) = self.ask(ApiKey.LIST_GROUPS, 5, kafka.ListGroupsRequest([], [])).groups
        return listed.group_type, listed.group_state

    def classic_groups(self) -> list[ClassicGroup]:
        """As the coordinator has them."""
        machine = self.coordinator._machine
        assert machine is not None
        classic = machine._groups[0]
        assert isinstance(classic, ClassicGroups)
        return list(classic._groups.values())

    def describe(self) -> Any:
        (found,) = self.ask(ApiKey.CONSUMER_GROUP_DESCRIBE, 1, kafka.ConsumerGroupDescribeRequest([GROUP])).groups
        return found

    def describe_classic(self) -> Any:
        (found,) = self.ask(ApiKey.DESCRIBE_GROUPS, 6, kafka.DescribeGroupsRequest([GROUP])).groups
        return found


class Classic:
    """A member of the classic protocol. has: the partitions of `orders` that it was told. eager: it gives all up to join."""

    def __init__(
        self, coordinator: Mixed, member: str = "", *, instance: str | None = None, eager: bool = False,
        topics: tuple[str, ...] = ("orders",), version: int = 1, session_ms: int = 10_000, rebalance_ms: int = 5_000,
    ) -> None:
        self.coordinator = coordinator
        self.member_id = member
        self.instance = instance
        self.eager = eager
        self.topics = topics
        self.version = version
        self.session_ms, self.rebalance_ms = session_ms, rebalance_ms
        self.protocols = ("range",) if eager else ("cooperative-sticky",)
        self.generation = -1
        self.leads = False
        self.has: set[int] = set()
        self._asked = 0

    def _send(self, api: ApiKey, version: int, request: Any) -> None:
        self._asked = self.coordinator.post(api, version, request)

    def _answer(self) -> Any:
        return self.coordinator.replies.pop(self._asked)

    def ask_to_join(self) -> None:
        if self.eager:
            self.has = set()
        metadata = subscription(*self.topics, owned=self.has, version=self.version)
        self._send(ApiKey.JOIN_GROUP, 3 if self.instance is None else 5, kafka.JoinGroupRequest(
            GROUP, self.session_ms, self.rebalance_ms, self.member_id, self.instance, "consumer",
            [kafka.JoinGroupRequestProtocol(name, metadata) for name in self.protocols]))

    def take_join(self) -> int:
        answer = self._answer()
        if not answer.error_code:
            self.member_id, self.generation = answer.member_id, answer.generation_id
            self.leads = answer.leader == answer.member_id
        error: int = answer.error_code
        return error

    def sync(self, assignments: dict[str, bytes] | None = None) -> None:
        shares = (assignments or {}) if self.leads else {}
        self._send(ApiKey.SYNC_GROUP, 5, kafka.SyncGroupRequest(
            GROUP, self.generation, self.member_id, self.instance, "consumer", self.protocols[0],
            [kafka.SyncGroupRequestAssignment(*each) for each in shares.items()]))

    def take_sync(self) -> int:
        answer = self._answer()
        if not answer.error_code:
            self.has = read_assignment(answer.assignment)[0].get("orders", set())
        error: int = answer.error_code
        return error

    def join(self) -> int:
        """The first error of a whole round, or 0. Only a consumer group answers all of it at once."""
        self.ask_to_join()
        error = self.take_join()
        if error:
            return error
        self.sync()
        return self.take_sync()

    def beat(self) -> int:
        self._send(ApiKey.HEARTBEAT, 4, kafka.HeartbeatRequest(GROUP, self.generation, self.member_id, self.instance))
        error: int = self._answer().error_code
        return error

    def leave(self) -> int:
        self._send(ApiKey.LEAVE_GROUP, 5, kafka.LeaveGroupRequest(
            GROUP, members=[kafka.MemberIdentity(self.member_id, self.instance)]))
        error: int = self._answer().members[0].error_code
        return error

    def commit(self, offset: int, partition: int, *, generation: int | None = None) -> int:
        return self.coordinator.commit(
            GROUP, offset, partition=partition, member_id=self.member_id, version=8,
            generation_id_or_member_epoch=self.generation if generation is None else generation)
