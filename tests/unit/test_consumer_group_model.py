"""Random members of KIP-848 groups, with lost mail and coordinators that crash, against what must hold whatever happens.

By what members were told and have not given up, a partition has one owner at any time; a member's epoch never goes back
while it is a member; once it is quiet all is owned by who reads it; the log replays to the state that wrote it.
"""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.unit.drive_consumer_groups import Bench, told, topics_of
from zafka.actors.groups.calls import Commit, Outbox
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages.consumer_group_heartbeat import ConsumerGroupHeartbeatResponse

SESSION_S = 45.0
REBALANCE_S = 120.0  # longer than who does not hear of it takes to give up by itself
STEPS = 250
OUT = (ErrorCode.FENCED_MEMBER_EPOCH, ErrorCode.UNKNOWN_MEMBER_ID)

Part = tuple[str, int]


class Client:
    """A consumer as Kafka's: revokes what it is told to, sooner or later, and gives up everything when it is out.

    owned: what it reads. until: when it is done with revoking, and what. Both are its own view.
    """

    def __init__(self, member_id: str, group: str, names: list[str], instance_id: str | None, assignor: str | None) -> None:
        self.member_id = member_id
        self.group = group
        self.instance_id = instance_id
        self.assignor = assignor
        self.names: list[str] | None = names
        self.regex = ""
        self.epoch = 0
        self.owned: set[Part] = set()
        self.revoking: set[Part] = set()
        self.revoked_at_s = 0.0
        self.reported: set[Part] | None = None  # None: the coordinator must be told everything again
        self.heard_s = 0.0
        self.dead = False

    def __repr__(self) -> str:
        return f"<{self.member_id} {self.group} epoch={self.epoch} owned={sorted(self.owned)}>"

    def reset(self) -> None:
        self.epoch = 0
        self.owned, self.revoking, self.reported = set(), set(), None

    def by_topic(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for name, partition in self.owned:
            found.setdefault(name, []).append(partition)
        return found

    def request(self) -> dict[str, Any]:
        """All of it, unless the last answer has come; then only what is new."""
        said: dict[str, Any] = {"group": self.group, "instance_id": self.instance_id}
        if self.reported is None or self.epoch == 0:
            said |= {
                "rebalance_timeout_ms": round(REBALANCE_S * 1000), "subscribed_topic_names": self.names,
                "server_assignor": self.assignor, "owned": self.by_topic(), "subscribed_topic_regex": self.regex}
        elif self.owned != self.reported:
            said["owned"] = self.by_topic()
        return said


class World:
    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.topics = {name: self.rng.randrange(1, 7) for name in ("t", "u", "v-1", "v-2")}
        self.bench = Bench(self.topics, assignment_interval_ms=self.rng.choice(["0", "0", "2000"]))
        self.clients: list[Client] = []
        self.retired: list[tuple[str, str, int]] = []
        self.count = 0

    @property
    def live(self) -> list[Client]:
        return [client for client in self.clients if not client.dead]

    # -- what happens ----------------------------------------------------------------------------

    def step(self) -> None:
        act = self.rng.choices(
            (self.beat, self.wait, self.arrive, self.go, self.change_subscription, self.change_topics, self.crash),
            weights=(60, 18, 6, 5, 4, 3, 4))[0]  # fmt: skip
        act()
        self.check()

    def arrive(self) -> None:
        if len(self.live) > 7:
            return
        self.count += 1
        group = self.rng.choice(["g", "g", "h"])
        instance_id = self.rng.choice([None, None, "i1", "i2"])
        names = self.rng.sample(sorted(self.topics), self.rng.randrange(0, 3)) or ["t"]
        assignor = self.rng.choice([None, None, "range", "uniform"])
        client = Client(f"m{self.count}", group, names, instance_id, assignor)
        client.heard_s = self.bench.monotonic_s
        self.clients.append(client)
        self.heartbeat(client)

    def beat(self) -> None:
        for client in self.rng.sample(self.live, min(len(self.live), 3)):
            self.heartbeat(client)

    def wait(self) -> None:
        seconds = self.rng.choice([0.3, 1.0, 5.0, 20.0])
        for _ in range(round(seconds * 2)):
            self.bench.pass_time(0.5)
            self.time_passed()

    def time_passed(self) -> None:
        for client in self.live:
            if client.revoking and self.bench.monotonic_s >= client.revoked_at_s:
                client.owned -= client.revoking
                client.revoking = set()
            if self.bench.monotonic_s - client.heard_s > SESSION_S - 2:
                client.reset()  # it has not heard of its coordinator: it must be out by now, or will be

    def go(self) -> None:
        """Leave, for good or for a moment, or die."""
        if not self.live:
            return
        client = self.rng.choice(self.live)
        how = self.rng.choice(["leave", "static", "die"])
        if client.epoch > 0 and how != "die":
            epoch = -2 if how == "static" and client.instance_id is not None else -1
            self.bench.leave(client.member_id, epoch, group=client.group, instance_id=client.instance_id)
        client.dead = True
        self.retire(client)

    def retire(self, client: Client) -> None:
        if client.epoch > 0:
            self.retired.append((client.group, client.member_id, client.epoch))
        client.reset()

    def change_subscription(self) -> None:
        if self.live:
            client = self.rng.choice(self.live)
            client.reported = None
            client.names, client.regex = self.rng.choice([
                (["t"], ""), (["t", "u"], ""), ([], "v-.*"), (["t"], "v-.*|u"), (["none"], ""), ([], "")])  # fmt: skip

    def change_topics(self) -> None:
        self.change_topics_of_the_cluster()
        self.bench.set_topics(self.topics)

    def change_topics_of_the_cluster(self) -> None:
        name = self.rng.choice(["t", "u", "v-1", "v-2", "v-3", "w"])
        if name in self.topics and name.startswith("v") and self.rng.random() < 0.4:
            del self.topics[name]
        else:
            self.topics[name] = self.topics.get(name, 0) + self.rng.randrange(1, 3)

    def crash(self) -> None:
        """The log may have been written by one who knew other topics than its successor."""
        if self.rng.random() < 0.3:
            self.change_topics_of_the_cluster()
            self.bench.cluster = topics_of(self.topics)
        self.bench.restart()

    # -- heartbeats --------------------------------------------------------------------------------

    def heartbeat(self, client: Client) -> None:
        """The request, or the answer, may be lost; in the latter case perhaps with what it decided."""
        fate = self.rng.random()
        if fate < 0.05:
            client.reported = None
            return
        before = len(self.bench.log)
        saying = frozenset(client.owned)
        answer = self.bench.heartbeat(client.member_id, client.epoch, **client.request())
        if fate < 0.12:
            client.reported = None
            if fate < 0.08:  # the coordinator died before it was committed
                del self.bench.log[before:]
                self.bench.begin()
                self.bench.restart()
            return
        self.hear(client, answer, set(saying))

    def hear(self, client: Client, answer: ConsumerGroupHeartbeatResponse, said: set[Part]) -> None:
        if answer.error_code in OUT:
            self.retire(client)
            return
        if answer.error_code:
            assert answer.error_code in (ErrorCode.UNRELEASED_INSTANCE_ID, ErrorCode.FENCED_INSTANCE_ID,
                                         ErrorCode.GROUP_ID_NOT_FOUND), answer  # fmt: skip
            client.dead = client.dead or answer.error_code == ErrorCode.FENCED_INSTANCE_ID
            self.retire(client)
            return
        assert answer.member_epoch >= client.epoch, "its epoch went back"
        client.epoch, client.heard_s, client.reported = answer.member_epoch, self.bench.monotonic_s, said
        if (assignment := told(answer)) is None:
            return
        wanted = {(name, partition) for name, partitions in assignment.items() for partition in partitions}
        assert not wanted & client.revoking, "given again what it is still giving up"
        client.owned |= wanted
        if give_up := client.owned - wanted:
            if give_up != client.revoking:
                client.revoked_at_s = self.bench.monotonic_s + self.rng.choice([0.0, 0.5, 3.0, 25.0])
            client.revoking = give_up

    # -- what must hold ------------------------------------------------------------------------------

    def check(self) -> None:
        owners: dict[tuple[str, Part], Client] = {}
        for client in self.live:
            for part in client.owned:
                other = owners.setdefault((client.group, part), client)
                assert other is client, f"{part} is read by {other} and {client}"
        for group, member_id, epoch in self.retired[-5:]:
            found = self.bench.groups._groups.get(group)
            member = found and found.members.get(member_id)
            if member is not None and member.position.epoch == epoch:
                continue  # it died, and nobody has noticed
            commit = Commit(group, member_id, None, epoch, 9)
            if group in self.bench.groups:
                assert self.bench.groups.check_commit(commit, self.bench.now, Outbox()) != 0, commit

    def check_quiet(self) -> None:
        """Nothing happens any more but heartbeats: soon all is owned, and nothing changes."""
        for _ in range(200):
            self.bench.pass_time(0.5)
            self.time_passed()
            for client in self.live:
                said = frozenset(client.owned)
                self.hear(client, self.bench.heartbeat(client.member_id, client.epoch, **client.request()), set(said))
            self.check()
        for group in ("g", "h"):
            members = [client for client in self.live if client.group == group and client.epoch > 0]
            described = self.bench.describe(group)
            assert {member.member_id for member in described.members} == {client.member_id for client in members}
            if not members:
                continue
            assert described.group_state == "Stable", described
            assert {client.epoch for client in members} == {described.group_epoch}
            owned = {part: client for client in members for part in client.owned}
            for name, count in self.topics.items():
                readers = [client for client in members if self.reads(client, name)]
                for partition in range(count):
                    owner = owned.pop((name, partition), None)
                    assert (owner in readers) if readers else owner is None, (name, partition, owner)
            assert owned == {}, "what is not there is owned"

    def reads(self, client: Client, name: str) -> bool:
        matches = {"": (), "v-.*": ("v-",), "v-.*|u": ("v-", "u")}[client.regex]
        return name in (client.names or ()) or name.startswith(matches)


@pytest.mark.parametrize("seed", range(60))
def test_whatever_happens(seed: int) -> None:
    print(f"seed {seed}")
    world = World(seed)
    for _ in range(STEPS):
        world.step()
    world.check_quiet()
    world.bench.restart()
