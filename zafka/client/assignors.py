"""Who reads what in a group: Kafka's ways to share partitions among members.

Owns: `ASSIGNORS`, by the names that all clients use. Pure: members and partition counts in, assignments out.
Invariants: every partition of a topic that somebody wants goes to exactly one who wants it; under `cooperative-sticky` to
nobody while another one still has it. The same members and counts lead to the same assignment.
Source: Kafka RangeAssignor, RoundRobinAssignor, AbstractStickyAssignor, CooperativeStickyAssignor (KIP-429).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import cycle
from typing import NamedTuple

from zafka.client.group_protocol import Subscription
from zafka.client.records import TopicPartition

Members = Mapping[str, Subscription]  # by member id
Counts = Mapping[str, int]  # partitions of each topic that exists
Assignments = dict[str, set[TopicPartition]]  # by member id


class Assignor(NamedTuple):
    """cooperative: members keep what they have while the group shares anew."""

    assign: Callable[[Members, Counts], Assignments]
    cooperative: bool = False
    sticky_user_data: bool = False


def in_order(members: Members) -> list[str]:
    """Static members first, by their names, which outlive their ids."""
    return sorted(members, key=lambda member: (
        members[member].instance_id is None, members[member].instance_id or "", member))


def _wanted_topics(members: Members, counts: Counts) -> list[str]:
    wanted = {topic for member in members.values() for topic in member.topics}
    return sorted(topic for topic in wanted if topic in counts)


def assign_range(members: Members, counts: Counts) -> Assignments:
    """Neighbouring partitions to each member, topic by topic: the same numbers of several topics go together."""
    result: Assignments = {member: set() for member in members}
    for topic in _wanted_topics(members, counts):
        takers = [member for member in in_order(members) if topic in members[member].topics]
        each, more = divmod(counts[topic], len(takers))
        first = 0
        for index, member in enumerate(takers):
            end = first + each + (index < more)
            result[member].update(TopicPartition(topic, partition) for partition in range(first, end))
            first = end
    return result


def assign_round_robin(members: Members, counts: Counts) -> Assignments:
    """Partitions of all topics dealt out in turn."""
    result: Assignments = {member: set() for member in members}
    turn = cycle(in_order(members))
    for topic in _wanted_topics(members, counts):
        for partition in range(counts[topic]):
            taker = next(member for member in turn if topic in members[member].topics)
            result[taker].add(TopicPartition(topic, partition))
    return result


def assign_sticky(members: Members, counts: Counts) -> Assignments:
    """As even as can be with few partitions moved: members keep what they have, then the fullest give to the emptiest."""
    result = _kept(members, counts)
    order = in_order(members)
    given = set().union(*result.values()) if result else set()
    for topic in _wanted_topics(members, counts):
        takers = [member for member in order if topic in members[member].topics]
        for partition in range(counts[topic]):
            if (where := TopicPartition(topic, partition)) not in given:
                result[min(takers, key=lambda member: len(result[member]))].add(where)
    while _move_one(result, members, order):
        pass
    return result


def _kept(members: Members, counts: Counts) -> Assignments:
    """What each may keep. Of two who claim a partition the one of the later generation has it; equals lose it both."""
    claims: dict[TopicPartition, list[tuple[int, str]]] = {}
    for member, subscription in members.items():
        for where in subscription.owned:
            if where.topic in subscription.topics and 0 <= where.partition < counts.get(where.topic, 0):
                claims.setdefault(where, []).append((subscription.generation, member))
    result: Assignments = {member: set() for member in members}
    for where, claimed in claims.items():
        latest = max(generation for generation, _ in claimed)
        owners = [member for generation, member in claimed if generation == latest]
        if len(owners) == 1:
            result[owners[0]].add(where)
    return result


def _move_one(result: Assignments, members: Members, order: Iterable[str]) -> bool:
    """Move a partition from a fuller member to one that has at least two less. Each move evens out, so moves end."""
    by_size = sorted(order, key=lambda member: len(result[member]))
    for giver in reversed(by_size):
        for taker in by_size:
            if len(result[giver]) <= len(result[taker]) + 1:
                break
            movable = [where for where in result[giver] if where.topic in members[taker].topics]
            if movable:
                where = max(movable)
                result[giver].remove(where)
                result[taker].add(where)
                return True
    return False


def assign_cooperative(members: Members, counts: Counts) -> Assignments:
    """As `assign_sticky`, but what another one still has is given to nobody: it gives it up, and the group shares anew."""
    result = assign_sticky(members, counts)
    owner_of = {where: member for member, owned in _kept(members, counts).items() for where in owned}
    for member, assigned in result.items():
        assigned -= {where for where in assigned if owner_of.get(where, member) != member}
    return result


ASSIGNORS: dict[str, Assignor] = {
    "range": Assignor(assign_range),
    "roundrobin": Assignor(assign_round_robin),
    "sticky": Assignor(assign_sticky, sticky_user_data=True),
    "cooperative-sticky": Assignor(assign_cooperative, cooperative=True),
}
