"""Classic groups under members that join, sync, commit, leave, crash, come anew and wait, and a coordinator that restarts
at any time: whatever happens, nobody owns what another one owns, and nobody waits for ever. From seeds."""

from __future__ import annotations

from random import Random

import pytest

from tests.unit.drive_classic import GROUP_ID, INITIAL_MS, Asked, Classic
from zafka.actors.groups.records import GroupMetadataKey, GroupMetadataValue
from zafka.transport.kafka.api_keys import ApiKey

SEEDS, STEPS = range(40), 1000
PARTITIONS = 6
SESSION_MS, REBALANCE_MS = 6_000, 15_000
# A rebalance waits for those who have to join; the first one for the initial delay and as long again.
PATIENCE_MS = REBALANCE_MS + 2 * INITIAL_MS
STEP_MS_MAX = 2_500


class Member:
    """A client. generation: the one it takes itself to be in, -1 for none. owned: its assignment in it."""

    def __init__(self, random: Random, instance: str | None) -> None:
        self.instance = instance
        self.version = random.choice([5, 8, 9])
        self.protocols = random.choice([(("range", b"r"),), (("range", b"r"), ("sticky", b"s"))])
        self.begin()

    def begin(self) -> None:
        """As a new process."""
        self.id, self.generation, self.owned = "", -1, b""
        self.waits: Asked | None = None


class World:
    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.classic = Classic(group_min_session_timeout_ms=SESSION_MS, group_max_size=5)
        self.members = [Member(self.random, instance) for instance in (None, None, None, "a", "b", "c")]
        self.told = 0  # the newest generation that anybody was told of since the coordinator came up
        self.assigned: dict[tuple[int, str], bytes] = {}  # what anybody was told, by generation and member or instance
        self.commits = self.syncs = self.fenced = 0

    def step(self) -> None:
        action = self.random.choices(
            [self.act, self.pass_time, self.crash, self.leave, self.change, self.old_commit, self.restart],
            [200, 20, 3, 3, 3, 10, 1])[0]
        action()
        self.check()

    # -- what members do -----------------------------------------------------------------------

    def act(self) -> None:
        """What a client does next, by what it knows."""
        member = self.random.choice(self.members)
        if member.waits is not None:
            self.hear(member)
        elif member.generation < 0:
            member.waits = self.classic.join(
                member.id, instance=member.instance, version=member.version, protocols=member.protocols,
                session_ms=SESSION_MS, rebalance_ms=REBALANCE_MS)
        elif self.random.random() < 0.5:
            if self.classic.heartbeat(member.id, member.generation, instance=member.instance):
                member.generation = -1
        elif self.commit(member):
            member.generation = -1

    def hear(self, member: Member) -> None:
        asked, member.waits = member.waits, None
        assert asked is not None
        if asked.answer is None:
            member.waits = asked
        elif asked.answer.error_code:
            member.generation = -1
            member.id = asked.answer.member_id if asked.call.api_key == ApiKey.JOIN_GROUP else member.id
            if self.random.random() < 0.3:
                member.id = ""  # some clients begin anew
        elif asked.call.api_key == ApiKey.JOIN_GROUP:
            self.sync(member, asked)
        else:
            member.owned = asked.answer.assignment

    def sync(self, member: Member, joined: Asked) -> None:
        answer = joined.answer
        member.id, member.generation = answer.member_id, answer.generation_id
        assignments: dict[str, list[int]] = {each.member_id: [] for each in answer.members}
        for partition in range(PARTITIONS if assignments else 0):
            assignments[self.random.choice(sorted(assignments))].append(partition)
        member.waits = self.classic.sync(
            member.id, member.generation, {name: bytes(owned) for name, owned in assignments.items()},
            instance=member.instance, version=4)

    def commit(self, member: Member) -> int:
        if GROUP_ID not in self.classic.groups:
            return -1  # by committed offsets alone
        error = self.classic.commit(member.id, member.generation, instance=member.instance)
        if error == 0:
            self.commits += 1
            assert member.generation == self.told, "of another generation than the newest that was told"
        return error

    def old_commit(self) -> None:
        """Of one that was gone for a while: a member as it was in any generation."""
        member = self.random.choice(self.members)
        if GROUP_ID in self.classic.groups and self.told > 1:
            generation = self.random.randrange(1, self.told)
            assert self.classic.commit(member.id, generation, instance=member.instance) != 0
            self.fenced += 1

    def crash(self) -> None:
        self.random.choice(self.members).begin()

    def leave(self) -> None:
        member = self.random.choice(self.members)
        if member.id:
            self.classic.leave((member.id, member.instance))
            member.begin()

    def change(self) -> None:
        member = self.random.choice(self.members)
        member.protocols = (("range", b"r%d" % self.random.randrange(3)),)
        if member.waits is None:
            member.generation = -1

    def pass_time(self) -> None:
        self.classic.pass_ms(self.random.randrange(STEP_MS_MAX))

    # -- what holds ----------------------------------------------------------------------------

    def restart(self) -> None:
        """The log is all that is left, and says what was the case when it was written."""
        written = {key.group: value for key, value in self.classic.log}
        self.classic.restart()
        groups = self.classic.groups._groups
        assert {name: group.value() for name, group in groups.items()} == {
            name: value for name, value in written.items() if value is not None}
        last = written.get(GROUP_ID)
        self.told = last.generation if last is not None else 0
        for member in self.members:
            if member.waits is not None:
                member.waits, member.generation = None, -1

    def check(self) -> None:
        for asked in list(self.classic._open.values()):
            late = self.classic.ms - asked.at_ms
            assert late <= PATIENCE_MS, f"{asked.call} has waited for {late} ms"
        for member in self.members:
            asked = member.waits
            if asked is not None and asked.answer is not None and not asked.answer.error_code:
                if asked.call.api_key == ApiKey.JOIN_GROUP:
                    self.told = max(self.told, asked.answer.generation_id)
                else:
                    self.told_assignment(member, asked.answer.assignment)
        for name, group in self.classic.groups._groups.items():
            if group.state.value == "Stable":
                assert self.classic.log[-1] == (GroupMetadataKey(name), group.value()), "not what a restart would find"
        generations = [value.generation for _, value in self.classic.log if value is not None]
        assert generations == sorted(generations)
        for _, value in self.classic.log[-1:]:
            if value is not None:
                self.check_owners(value)

    def told_assignment(self, member: Member, assignment: bytes) -> None:
        """A generation has one assignment, whoever asks and however often."""
        self.syncs += 1
        key = (member.generation, member.instance or member.id)
        assert self.assigned.setdefault(key, assignment) == assignment
        mine = set(assignment)
        for (generation, other), owned in self.assigned.items():
            if generation == member.generation and other != key[1]:
                assert not mine & set(owned), f"{key} and {other} own the same"

    def check_owners(self, value: GroupMetadataValue) -> None:
        owned = [partition for member in value.members for partition in member.assignment]
        assert len(owned) == len(set(owned))
        instances = [member.group_instance_id for member in value.members if member.group_instance_id is not None]
        assert len(instances) == len(set(instances))
        assert value.leader is None or value.leader in {member.member_id for member in value.members}


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_members_do_nobody_owns_what_another_owns_and_nobody_waits_for_ever(seed: int) -> None:
    world = World(seed)
    for _ in range(STEPS):
        world.step()


def test_members_of_the_model_get_somewhere() -> None:
    worlds = [World(seed) for seed in range(10)]
    for world in worlds:
        for _ in range(STEPS):
            world.step()
    assert all(world.told > 3 for world in worlds)
    assert min(sum(world.commits for world in worlds), sum(world.syncs for world in worlds),
               sum(world.fenced for world in worlds)) > 100
