"""Members of a group that is rolled from one protocol to the other and back: each life of a member speaks one of the two.

Owns: `RollingGroup` and `RollingMember`. The group moves between the protocols as its members come and go, mixed most of
the time. A generation is a member epoch here, and the other way round.
Violations name themselves: two-owners (of a partition in one epoch, at the same time: a group that was empty counts anew, as
in Kafka; or a member is told that all is well, and another was given before what it has), fenced-commit (a commit was taken for a partition that another member has in a later epoch), offset-back and
offset-phantom as in `members.py`. A member is done when every partition has an owner.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.simulation.members import REBALANCE_MS, Group, GroupMember
from zafka.actors.groups.embedded import read_assignment, write_assignment
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages.consumer_group_heartbeat import ConsumerGroupHeartbeatRequest, TopicPartitions

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation

HEARTBEAT_VERSION, COMMIT_VERSION = 1, 9
JOIN_EPOCH, LEAVE_EPOCH = 0, -1
FIRST_EPOCH = 1  # of one member only: where two have it, the group was empty between, and one has not heard that it is out
FENCED = (ErrorCode.FENCED_MEMBER_EPOCH, ErrorCode.GROUP_ID_NOT_FOUND)


class Holding(NamedTuple):
    """What a member has now, and its epoch. since: by partition the epoch in which it was given to it, and the time."""

    epoch: int
    since: dict[int, tuple[int, float]]


class RollingGroup(Group):
    """has: by member. claims: by generation and partition who said, when it joined, that it has it (`cooperative.py`)."""

    def __init__(self, name: str, topic: str, partitions: int) -> None:
        super().__init__(name, topic, partitions)
        self.has: dict[str, Holding] = {}
        self.claims: dict[tuple[int, int], str] = {}

    @property
    def all_owned(self) -> bool:
        return set().union(*(has.since for has in self.has.values())) == set(range(self.partitions))

    def given_away(self, name: str, asked_s: float) -> list[tuple[int, str]]:
        """What this member has, and others were given after it, before it asked and was told that it is a member still."""
        mine = self.has[name].since if name in self.has else {}
        return [
            (partition, other) for partition, (epoch, since_s) in mine.items() for other, theirs in self.has.items()
            if other != name and partition in theirs.since and theirs.since[partition][0] > epoch
            and since_s < theirs.since[partition][1] < asked_s]


class RollingMember(GroupMember):
    """modern: it speaks KIP-848 in this life, else the classic protocol, and gives all up to join. modern_share: of its lives."""

    shared: RollingGroup
    modern_share = 0.5
    commit_version = COMMIT_VERSION

    def __init__(self, simulation: Simulation, name: str, group: RollingGroup) -> None:
        super().__init__(simulation, name, group)
        self.name = name
        self.modern = False
        self._topic_id = b""
        self._lives = 0

    def _begin_anew(self, delay_s: float = 0.0) -> None:
        self.shared.has.pop(self.name, None)
        super()._begin_anew(delay_s)

    def _be_born(self) -> None:
        """Somebody restarts this member, perhaps with another configuration."""
        self._lives += 1
        self.modern = self.random.random() < self.modern_share
        self.member_id = f"{self.name}-{self._lives}" if self.modern else ""

    # -- both protocols ------------------------------------------------------------------------

    def _join(self) -> None:
        if not self.member_id:
            self._be_born()
        if self.modern:
            self._heartbeat(JOIN_EPOCH)
        else:
            super()._join()

    def _on_error(self, error: int, step: Callable[[], None]) -> None:
        if error in FENCED:
            self._check_put_out()
            self._be_born()
            self._begin_anew()
        else:
            super()._on_error(error, step)

    def _take(self, owned: list[int]) -> None:
        """It was given these, in its epoch."""
        group, epoch = self.shared, self.generation
        for other, has in group.has.items():
            both = has.since.keys() & set(owned)
            if other != self.name and has.epoch == epoch > FIRST_EPOCH and both:
                self.violate("two-owners", f"{both} in epoch {epoch}: {other} and {self.name}")
        before = group.has[self.name].since if self.name in group.has else {}
        self.owned = owned
        group.has[self.name] = Holding(
            epoch, {partition: before.get(partition, (epoch, self.engine.now_s)) for partition in owned})
        group.newest = max(group.newest, epoch)
        self.engine.counts["shares of an epoch"] += 1

    def _check_sole(self) -> None:
        """It was told that it is a member, in the epoch that it knows."""
        for partition, other in self.shared.given_away(self.name, self._asked_s):
            self.violate("two-owners", f"{partition} was given to {other}, and {self.name} has it still and is a member")

    def _on_beaten(self, answer: Any) -> None:
        if answer.error_code in (0, ErrorCode.REBALANCE_IN_PROGRESS):
            self._check_sole()
        super()._on_beaten(answer)

    def _beat(self) -> None:
        if self.modern and not self.owned:
            self._end_or(lambda: self._heartbeat(self.generation))
        elif self.modern and self.random.random() < 0.5:
            self._look(self.random.choice(self.owned))
        elif self.modern:
            self._end_or(lambda: self._heartbeat(self.generation))
        else:
            super()._beat()

    def _end_or(self, go_on: Callable[[], None]) -> None:
        choice = self.random.random()
        if not self.finishing and choice > 0.94:
            self._vanish()
        elif not self.finishing and choice > 0.88:
            self._leave()
        else:
            go_on()

    def _go_on(self) -> None:
        super()._go_on()
        self.done = self.finishing and self.shared.all_owned

    def _leave(self) -> None:
        if not self.modern:
            super()._leave()
            return
        request = ConsumerGroupHeartbeatRequest(self.group, self.member_id, LEAVE_EPOCH)
        self.shared.has.pop(self.name, None)
        self._be_born()
        self.ask_coordinator(
            ApiKey.CONSUMER_GROUP_HEARTBEAT, HEARTBEAT_VERSION, request,
            self._guard(lambda answer: self._begin_anew(self.random.random())), self._step(self._begin_anew))

    def _vanish(self) -> None:
        self._be_born()
        super()._vanish()

    # -- classic -------------------------------------------------------------------------------

    def _metadata(self) -> bytes:
        """A subscription of version 0: who gives all up to join has nothing else to say."""
        return b"\0\0\0\0\0\1" + len(self.topic).to_bytes(2, "big") + self.topic.encode() + b"\xff\xff\xff\xff"

    def _share(self, partitions: Iterable[int]) -> bytes:
        return write_assignment(0, {self.topic: partitions})

    def _take_share(self, share: bytes) -> None:
        self._take(sorted(read_assignment(share)[0].get(self.topic, ())))

    # -- KIP-848 -------------------------------------------------------------------------------

    def _heartbeat(self, epoch: int, *, whole: bool = False) -> None:
        """whole: an answer was lost, in which it may have been given something: who says all is told all."""
        request = ConsumerGroupHeartbeatRequest(self.group, self.member_id, epoch, topic_partitions=[])
        if epoch == JOIN_EPOCH or whole:
            request.rebalance_timeout_ms, request.subscribed_topic_names = REBALANCE_MS, [self.topic]
        if epoch != JOIN_EPOCH and self.owned:
            request.topic_partitions = [TopicPartitions(self._topic_id, self.owned)]

        def on_answer(answer: Any) -> None:
            if answer.error_code in FENCED or answer.error_code == ErrorCode.UNKNOWN_MEMBER_ID:
                if answer.error_code != ErrorCode.FENCED_MEMBER_EPOCH:  # who missed two answers is behind, and no member any more
                    self._check_put_out()
                self._be_born()
                self._begin_anew()
            elif answer.error_code:
                self.check_retriable(answer.error_code)
                self.again(self._step(lambda: self._heartbeat(epoch, whole=True)))
            else:
                if epoch != JOIN_EPOCH:
                    self._check_sole()
                self._is_well()
                self.previous = self.generation if answer.member_epoch > self.generation else self.previous
                self.generation = answer.member_epoch
                given = self.owned
                if answer.assignment is not None:
                    for topic in answer.assignment.topic_partitions:
                        self._topic_id = topic.topic_id
                    given = [each for topic in answer.assignment.topic_partitions for each in topic.partitions]
                self._take(given)
                self._go_on()

        self.ask_coordinator(
            ApiKey.CONSUMER_GROUP_HEARTBEAT, HEARTBEAT_VERSION, request, self._guard(on_answer),
            self._step(lambda: self._heartbeat(epoch, whole=True)))

    def _is_fenced(self, partition: int, generation: int) -> bool:
        return any(
            other != self.name and has.epoch > generation and partition in has.since
            for other, has in self.shared.has.items())
