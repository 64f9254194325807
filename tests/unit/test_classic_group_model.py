"""A classic group under members that join, sync, leave, crash and come back, and coordinators that die at any turn.

Whatever happens: a partition has one owner in a generation; who is fenced does not commit; generations go up; every request
is answered within the rebalance timeout; a coordinator that takes over goes on from what was written. And when all is
quiet, every partition is owned.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from itertools import pairwise
from random import Random
from typing import NamedTuple
from unittest import mock

import pytest

from tests.unit.drive_classic import DELAY_S, GROUP_ID, Classic
from zafka.actors.groups.calls import Call, Outbox
from zafka.actors.groups.records import GroupMetadataKey, encode_group
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages.join_group import JoinGroupResponse
from zafka.transport.kafka.messages.sync_group import SyncGroupResponse

PARTITIONS = range(12)
REBALANCE_S = 20.0
ANSWERED_WITHIN_S = REBALANCE_S + DELAY_S
# All know both, because a restart leaves of a group only what it has chosen.
PROTOCOLS = (
    (("range", b"orders"), ("sticky", b"orders")), (("range", b"bills"), ("sticky", b"bills")),
    (("sticky", b"orders"), ("range", b"orders")))


class Mortal(Classic):
    """It may die in the middle of a turn: what that decided is neither written nor answered, nor is what comes after."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.death = 0.0  # how likely in a turn
        self.dead = False

    def keep(self, outbox: Outbox) -> None:
        self.dead = self.dead or self.world.random.random() < self.death
        if not self.dead:
            super().keep(outbox)
            for call, _ in outbox.answers:
                self.world.on_answer(call)

    def spared(self) -> AbstractContextManager[None]:
        """For questions whose answer is needed at once."""
        return mock.patch.object(self, "death", 0.0)

    def restart(self) -> None:
        self.dead = False
        with self.spared():
            super().restart()


class Asked(NamedTuple):
    """since: when. identity, generation: of the client that asked."""

    since: float
    identity: str
    instance: str | None
    generation: int


class Client:
    """A member as clients are. call: its JoinGroup or SyncGroup that waits. owned: since its last SyncGroup."""

    def __init__(self, world: World, instance: str | None) -> None:
        self.world = world
        self.instance = instance
        self.version = world.random.choice([5, 8, 9] if instance else [3, 5, 9])
        self.protocols = world.random.choice(PROTOCOLS)
        self.rebalance_s = world.random.choice([10.0, REBALANCE_S])
        self.session_s = world.random.choice([6.0, 12.0])
        self.forget()

    def forget(self) -> None:
        """Start anew: the process that was it is gone."""
        self.member_id = ""
        self.rejoin()

    def rejoin(self) -> None:
        self.generation = -1
        self.joined: JoinGroupResponse | None = None
        self.owned: frozenset[int] | None = None
        self.call: Call | None = None

    @property
    def identity(self) -> str:
        return self.instance or self.member_id

    def step(self) -> None:
        """What a client does next."""
        if self.call is not None:
            answer = self.world.classic.answer(self.call)
            if answer is not None:
                self.call = None
                self.take(answer)
        elif self.joined is None:
            self.call = self.world.asked(self, self.world.classic.join(
                self.member_id, instance=self.instance, version=self.version, protocols=self.protocols,
                session_s=self.session_s, rebalance_s=self.rebalance_s))
        elif self.owned is None:
            self.call = self.world.asked(self, self.world.classic.sync(
                self.member_id, self.generation, self.assign(self.joined), instance=self.instance,
                protocol=self.joined.protocol_name))
        else:
            with self.world.classic.spared():
                self.on_error(self.world.classic.heartbeat(self.member_id, self.generation, instance=self.instance))

    def assign(self, joined: JoinGroupResponse) -> dict[str, bytes]:
        """The leader's work; others are told no members, and neither is a leader that is to skip it."""
        members = [] if joined.skip_assignment else joined.members
        return {
            member.member_id: bytes(list(PARTITIONS)[number::len(members)]) for number, member in enumerate(members)}

    def take(self, answer: JoinGroupResponse | SyncGroupResponse) -> None:
        if answer.error_code:
            if answer.error_code == ErrorCode.MEMBER_ID_REQUIRED:
                assert isinstance(answer, JoinGroupResponse)
                self.member_id = answer.member_id
            self.on_error(answer.error_code)
        elif isinstance(answer, JoinGroupResponse):
            self.member_id, self.generation, self.joined = answer.member_id, answer.generation_id, answer
        else:
            self.owned = frozenset(answer.assignment)

    def on_error(self, error: int) -> None:
        match error:
            case 0:
                return
            case ErrorCode.UNKNOWN_MEMBER_ID:
                self.forget()
            case ErrorCode.FENCED_INSTANCE_ID:
                # It is the last that started: only a coordinator that did not hear of it takes another one for it.
                assert self.world.restarts, f"{self.instance} is fenced by nobody"
                self.forget()
            case ErrorCode.MEMBER_ID_REQUIRED | ErrorCode.REBALANCE_IN_PROGRESS | ErrorCode.ILLEGAL_GENERATION:
                self.rejoin()
            case _:
                raise AssertionError(f"a client is told {ErrorCode(error).name}")


class World:
    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.classic = Mortal(self)
        self.restarts = 0
        self.waiting: dict[Call, Asked] = {}
        self.owners: dict[tuple[int, int], str] = {}  # of a partition in a generation
        self.told = 0  # the highest generation that anybody was told of by this coordinator
        self.ids: dict[str, list[str]] = {}  # of each instance, as they were told, the oldest first
        self.clients = [
            Client(self, instance) for instance in (None, None, None, "i", "j")[:self.random.randrange(2, 6)]]

    def asked(self, client: Client, call: Call) -> Call:
        self.waiting[call] = Asked(
            self.classic.now.monotonic_s, client.identity, client.instance, client.generation)
        if self.classic.answer(call) is not None:
            self.on_answer(call)
        return call

    def on_answer(self, call: Call) -> None:
        """When it was given; its client hears of it later, or never."""
        answer, asked = self.classic.answer(call), self.waiting.pop(call, None)
        if asked is None or answer.error_code:
            return
        if isinstance(answer, JoinGroupResponse):
            assert answer.generation_id >= self.told
            self.told = answer.generation_id
            if asked.instance is not None:
                ids = self.ids.setdefault(asked.instance, [])
                if not ids or ids[-1] != answer.member_id:
                    ids.append(answer.member_id)
        elif isinstance(answer, SyncGroupResponse):
            for partition in answer.assignment:
                owner = self.owners.setdefault((asked.generation, partition), asked.identity)
                assert owner == asked.identity, f"{partition} in generation {asked.generation}"

    def commit(self, client: Client) -> None:
        """By a client as it is, or by one who was fenced: of an older generation, or another took its place."""
        if GROUP_ID not in self.classic.groups:
            return
        member_id, generation = client.member_id, client.generation
        fenced = generation < self.told
        old_ids = self.ids.get(client.instance or "", [])[:-1]
        if old_ids and not self.restarts and self.random.random() < 0.5:
            member_id, generation, fenced = self.random.choice(old_ids), self.told, True
        with self.classic.spared():
            error = self.classic.commit(member_id, generation, instance=client.instance)
        assert not (fenced and error == 0 and self.classic.members), f"{member_id} of {generation} commits"

    def live(self) -> None:
        """Something happens."""
        client, chance = self.random.choice(self.clients), self.random.random()
        if chance < 0.65:
            client.step()
        elif chance < 0.80:
            self.commit(client)
        elif chance < 0.90:
            self.classic.pass_time(self.random.choice([0.1, 1.0, 3.0, 7.0]))
        elif chance < 0.93:
            client.forget()
        elif chance < 0.95:
            with self.classic.spared():
                self.classic.leave((client.member_id, client.instance))
            client.forget()
        elif chance < 0.99:
            client.protocols = self.random.choice(PROTOCOLS)
            client.rejoin()
        else:
            self.classic.dead = True
        self.check()

    def check(self) -> None:
        if self.classic.dead:
            self.restart()
        for call, asked in self.waiting.items():
            waited_s = self.classic.now.monotonic_s - asked.since
            assert waited_s <= ANSWERED_WITHIN_S + 0.01, f"{call} waits since {waited_s} s"

    def restart(self) -> None:
        """Nobody knows any more who asked what; clients ask again."""
        self.classic.restart()
        self.restarts += 1
        self.waiting.clear()
        for client in self.clients:
            client.call = None
        group = self.classic.groups._groups.get(GROUP_ID)
        written = self.classic.written()
        assert (group is None) == (not written)
        if group is not None:
            assert self.classic.log[-1] == encode_group(GroupMetadataKey(GROUP_ID), group.value()), "not as it was written"
            self.told = group.generation

    def check_log(self) -> None:
        """A generation is written once, and again only where static members came under other ids."""
        records = [record for record in self.classic.written() if record is not None]
        for one, other in pairwise(records):
            if one.generation == other.generation:
                assert sorted((str(each.group_instance_id), each.assignment) for each in one.members) == sorted(
                    (str(each.group_instance_id), each.assignment) for each in other.members)
            else:
                assert other.generation > one.generation

    def come_to_rest(self) -> None:
        self.classic.death = 0.0
        self.check()
        for _ in range(600):
            for client in self.clients:
                client.step()
            generations = {client.generation for client in self.clients}
            members = {client.member_id for client in self.clients if client.owned is not None}
            if len(generations) == 1 and len(members) == len(self.clients) and members == set(self.classic.members):
                break
            self.classic.pass_time(0.5)
            self.check()
        assert sorted(partition for client in self.clients for partition in client.owned or ()) == list(PARTITIONS)
        assert self.classic.state == "Stable"
        pending = self.classic.groups._groups[GROUP_ID].pending
        assert len(self.classic.timers) == len(self.clients) + len(pending), "timers of nobody"


@pytest.mark.parametrize("seed", range(60))
def test_one_owner_no_fenced_commit_and_an_answer_for_everybody(seed: int) -> None:
    world = World(seed)
    world.classic.death = death = 0.01 if seed % 2 else 0.0
    for _ in range(5):
        for _ in range(100):
            world.live()
        world.come_to_rest()
        world.classic.death = death
    world.check_log()


@pytest.mark.parametrize("seed", range(20))
def test_a_group_at_rest_is_after_a_restart_what_it_was(seed: int) -> None:
    world = World(seed)
    for _ in range(10):
        for _ in range(30):
            world.live()
        world.come_to_rest()
        before = world.classic.describe()
        world.restart()
        assert world.classic.describe() == before
        for client in world.clients:
            assert world.classic.heartbeat(client.member_id, client.generation, instance=client.instance) == 0
