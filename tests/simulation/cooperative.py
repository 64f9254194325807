"""Members that keep their partitions while they join: cooperative ones of the classic protocol, alone or with KIP-848 members.

Owns: `CooperativeMember`. Whoever leads a generation gives nobody what another one says it has; who is told to have less
gives up the rest and joins again, and then it is anybody's. What is no longer a member's in the eyes of the coordinator (it
was fenced, or does not know its generation) is lost to it at once.
Violations are those of `rolling.py`; two-owners also where a leader is told so, and where somebody is given, in a generation of
classic members alone, what another one said to have when it joined that.
Source: KIP-429.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tests.simulation.rolling import RollingGroup, RollingMember
from zafka.actors.groups.embedded import read_subscription
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages.join_group import JoinGroupResponseMember
from zafka.transport.kafka.messages.sync_group import SyncGroupRequestAssignment

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation

SUBSCRIPTION_VERSION = 2
REJOIN_S = 0.05


class CooperativeMember(RollingMember):
    """held_in: the generation in which it was told what it has."""

    assignor = "cooperative-sticky"

    def __init__(self, simulation: Simulation, name: str, group: RollingGroup, modern_share: float) -> None:
        super().__init__(simulation, name, group)
        self.modern_share = modern_share
        self.held_in = -1

    def _begin_anew(self, delay_s: float = 0.0) -> None:
        """It claims nothing any more. A generation that no log has yet is forgotten with its coordinator, and its number comes again."""
        claims = self.shared.claims
        for place in [place for place, name in claims.items() if name == self.name]:
            del claims[place]
        super()._begin_anew(delay_s)

    def _on_error(self, error: int, step: Callable[[], None]) -> None:
        if error == ErrorCode.REBALANCE_IN_PROGRESS and not self.modern:
            self._join_again()
        else:
            super()._on_error(error, step)

    def _join_again(self) -> None:
        """With all that it has."""
        self._life += 1
        self.previous = max(self.previous, self.generation)
        self.engine.counts["joins with partitions"] += bool(self.owned)
        self.after(REJOIN_S * self.random.random(), self._step(self._join))

    # -- a generation --------------------------------------------------------------------------

    def _metadata(self) -> bytes:
        """A subscription of version 2: topics, no user data, what it has, and since when."""
        topic = len(self.topic).to_bytes(2, "big") + self.topic.encode()
        owned = struct.pack(">i", 1) + topic + struct.pack(f">i{len(self.owned)}i", len(self.owned), *self.owned)
        return (struct.pack(">hi", SUBSCRIPTION_VERSION, 1) + topic + struct.pack(">i", -1)
                + owned + struct.pack(">i", self.held_in))

    def _assign(self, members: list[JoinGroupResponseMember]) -> list[SyncGroupRequestAssignment]:
        """To each its share, but for what another one has yet."""
        owners = self._owners(members)
        shares = []
        for index, member_id in enumerate(sorted(each.member_id for each in members)):
            share = range(index, self.shared.partitions, len(members))
            free = [partition for partition in share if owners.get(partition, member_id) == member_id]
            shares.append(SyncGroupRequestAssignment(member_id, self._share(free)))
        return shares

    def _owners(self, members: list[JoinGroupResponseMember]) -> dict[int, str]:
        """By partition who says that he has it; of several the one of the newest generation."""
        owners: dict[int, tuple[int, str]] = {}
        for each in members:
            owned = read_subscription(each.metadata).owned.get(self.topic, set())
            (held_in,) = struct.unpack(">i", each.metadata[-4:])
            for partition in owned:
                before = owners.get(partition, (-1, ""))
                if before[0] == held_in:
                    self.violate("two-owners", f"{before[1]} and {each.member_id} say that they have {partition} since {held_in}")
                owners[partition] = max(before, (held_in, each.member_id))
        return {partition: owner for partition, (_, owner) in owners.items()}

    def _on_joined(self, answer: Any) -> None:
        claimed = [] if answer.error_code else self.owned
        super()._on_joined(answer)
        for partition in claimed:
            self._compare(self.shared.claims, self.shared.owners, partition)

    def _compare(self, mine: dict[tuple[int, int], str], theirs: dict[tuple[int, int], str], partition: int) -> None:
        """What this one says to have, or is given, nobody else is given or says to have in this generation."""
        place = self.generation, partition
        mine[place] = self.name
        if theirs.get(place, self.name) != self.name:
            self.violate("two-owners", f"{partition} in generation {self.generation}: also {theirs[place]} was given it, or had it")

    def _on_synced(self, answer: Any) -> None:
        had = set(self.owned)
        super()._on_synced(answer)
        if not answer.error_code and had.difference(self.owned):
            self._join_again()  # now that it has given them up

    def _take_share(self, share: bytes) -> None:
        super()._take_share(share)
        self.held_in = self.generation
        for partition in self.owned:
            self._compare(self.shared.owners, self.shared.claims, partition)
