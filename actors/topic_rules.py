"""Which topics and partitions may be created, and where they go. Pure; the coordinator asks, nobody else.

Owns: Kafka's rules and its words for what is refused.
May fail with: `Refused`.
Source: org.apache.kafka.common.internals.Topic, ReplicationControlManager, StripedReplicaPlacer, ControllerApis.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, zip_longest
from typing import NamedTuple

from zafka.actors.messages import MorePartitions, NewTopic
from zafka.actors.refused import Refused
from zafka.storage.config import check_topic_config
from zafka.storage.errors import InvalidConfig
from zafka.transport.kafka.errors import ErrorCode

NAME_LENGTH_MAX = 249  # so that "<name>-<partition>.<id>-delete" stays below a file name's 255 bytes
PARTITIONS_MAX = 10_000  # in one request, as in Kafka
TOO_MANY = "Excessively large number of partitions per request."
INTERNAL_NAMES = ("__cluster", "__cluster_metadata")

_LEGAL_NAME = re.compile(r"[a-zA-Z0-9._-]+")


class Place(NamedTuple):
    """A broker that replicas may go to. rack: "" if the topology names none."""

    broker_id: int
    rack: str


def decide_topic(
    topic: NewTopic, *, taken: Iterable[str], places: Sequence[Place], defaults: Mapping[str, str], placed: int
) -> list[list[int]]:
    """The replicas of each partition of a topic that may be created as asked.

    taken: names of the topics that exist. placed: partitions that the cluster has, so that placement goes on
        round the brokers from there.
    Raises Refused.
    """
    check_name(topic.name, taken)
    try:
        check_topic_config(topic.config)
    except InvalidConfig as invalid:
        raise Refused(ErrorCode.INVALID_CONFIG, str(invalid)) from None
    if topic.assignment:
        return _check_assignment(topic, [place.broker_id for place in places])
    return _place_topic(topic, places, defaults, placed)


def are_too_many(topics: Iterable[NewTopic], defaults: Mapping[str, str]) -> bool:
    """Whether topics that shall be created together have more partitions than one request may ask for."""
    standard = int(defaults.get("num.partitions", "1"))
    counts = (len(topic.assignment) or (standard if topic.partitions == -1 else topic.partitions) for topic in topics)
    return sum(counts) > PARTITIONS_MAX


def decide_more_partitions(
    more: MorePartitions, partitions: Sequence[Sequence[int]], *, places: Sequence[Place], placed: int
) -> list[list[int]]:
    """The replicas of each partition that a topic gets beside those it has.

    partitions: the replicas of those it has. placed: as in `decide_topic`. Raises Refused.
    """
    count = len(partitions)
    if more.count == count:
        raise Refused(ErrorCode.INVALID_PARTITIONS, f"Topic already has {count} partition(s).")
    if more.count < count:
        raise Refused(
            ErrorCode.INVALID_PARTITIONS,
            f"The topic {more.name} currently has {count} partition(s); {more.count} would not be an increase.")
    added, factor = more.count - count, len(partitions[0])
    if more.assignment is None:
        return place_partitions(added, factor, places=places, placed=placed)
    if len(more.assignment) != added:
        raise Refused(
            ErrorCode.INVALID_REPLICA_ASSIGNMENT,
            f"Attempted to add {added} additional partition(s), but only {len(more.assignment)} assignment(s) were "
            "specified.")
    return _check_replicas(more.assignment, factor, [place.broker_id for place in places])


def check_name(name: str, taken: Iterable[str]) -> None:
    """Refuse a name that no topic may have, or that another topic has or is too like."""
    if name in INTERNAL_NAMES:
        raise Refused(ErrorCode.INVALID_REQUEST, f"Creation of internal topic {name} is prohibited.")
    check_legal_name(name)
    like = name.replace(".", "_")
    for other in taken:
        if other == name:
            raise Refused(ErrorCode.TOPIC_ALREADY_EXISTS, f"Topic '{name}' already exists.")
        if other.replace(".", "_") == like:
            # Their metric names would be the same.
            raise Refused(
                ErrorCode.INVALID_TOPIC_EXCEPTION, f"Topic '{name}' collides with existing topic: {other}")


def check_legal_name(name: str) -> None:
    """Refuse a name that no topic may have."""
    reason = _illegal_name(name)
    if reason:
        raise Refused(ErrorCode.INVALID_TOPIC_EXCEPTION, f"Topic name is invalid: {reason}")


def _illegal_name(name: str) -> str:
    """Why no topic may be called so, in Kafka's words, or ""."""
    if not name:
        return "the empty string is not allowed"
    if name in (".", ".."):
        return f"'{name}' is not allowed"
    if len(name) > NAME_LENGTH_MAX:
        return f"the length of '{name}' is longer than the max allowed length {NAME_LENGTH_MAX}"
    if not _LEGAL_NAME.fullmatch(name):
        return f"'{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"
    return ""


def _place_topic(
    topic: NewTopic, places: Sequence[Place], defaults: Mapping[str, str], placed: int
) -> list[list[int]]:
    count, factor = topic.partitions, topic.replication_factor
    if factor == 0 or factor < -1:
        raise Refused(
            ErrorCode.INVALID_REPLICATION_FACTOR,
            "Replication factor must be larger than 0, or -1 to use the default value.")
    if count == 0 or count < -1:
        raise Refused(ErrorCode.INVALID_PARTITIONS, "Number of partitions was set to an invalid non-positive value.")
    if count == -1:
        count = int(defaults.get("num.partitions", "1"))
    if factor == -1:
        factor = int(defaults.get("default.replication.factor", "1"))
    return place_partitions(count, factor, places=places, placed=placed)


def place_partitions(count: int, factor: int, *, places: Sequence[Place], placed: int) -> list[list[int]]:
    """Replicas of `count` new partitions, round robin over the brokers, on different racks as far as there are."""
    if count > PARTITIONS_MAX:
        raise Refused(ErrorCode.POLICY_VIOLATION, TOO_MANY)
    if factor > len(places):
        raise Refused(
            ErrorCode.INVALID_REPLICATION_FACTOR,
            f"Unable to replicate the partition {factor} time(s): The target replication factor of {factor} cannot "
            f"be reached because only {len(places)} broker(s) are registered or some brokers have all their log "
            "directories cordoned.")
    _check_factor(factor)
    ring = _across_racks(places)
    return [[ring[(placed + i + k) % len(ring)] for k in range(factor)] for i in range(count)]


def _across_racks(places: Sequence[Place]) -> list[int]:
    """Broker ids in an order in which neighbours are on different racks, as far as possible."""
    racks: dict[str, list[int]] = {}
    for place in sorted(places):
        racks.setdefault(place.rack, []).append(place.broker_id)
    rounds = zip_longest(*(racks[rack] for rack in sorted(racks)))
    return [broker_id for broker_id in chain.from_iterable(rounds) if broker_id is not None]


def _check_factor(factor: int) -> None:
    if factor > 1:
        raise Refused(
            ErrorCode.INVALID_REPLICATION_FACTOR,
            f"A replication factor of {factor} is not supported yet; zafka does not replicate so far, use 1.")


def _check_assignment(topic: NewTopic, broker_ids: Sequence[int]) -> list[list[int]]:
    """Replicas that the client chose itself, if they can be had."""
    for name, value in (("replication factor", topic.replication_factor), ("numPartitions", topic.partitions)):
        if value != -1:
            raise Refused(
                ErrorCode.INVALID_REQUEST,
                f"A manual partition assignment was specified, but {name} was not set to -1.")
    return _check_replicas(topic.assignment, len(topic.assignment[0]), broker_ids)


def _check_replicas(
    assignment: Sequence[Sequence[int]], factor: int, broker_ids: Sequence[int]
) -> list[list[int]]:
    for replicas in assignment:
        reason = _wrong_replicas(replicas, factor, broker_ids)
        if reason:
            raise Refused(ErrorCode.INVALID_REPLICA_ASSIGNMENT, f"The manual partition assignment includes {reason}")
    _check_factor(factor)
    return [list(replicas) for replicas in assignment]


def check_reassignment(wanted: Sequence[int], current: Sequence[int], broker_ids: Sequence[int]) -> None:
    """Refuse to move a partition: to where nothing can be, and, for now, to anywhere else."""
    reason = _wrong_replicas(wanted, len(wanted), broker_ids)
    if reason:
        raise Refused(ErrorCode.INVALID_REPLICA_ASSIGNMENT, f"The manual partition assignment includes {reason}")
    if list(wanted) != list(current):
        raise Refused(
            ErrorCode.INVALID_REPLICA_ASSIGNMENT,
            f"moving a partition is not supported yet; it stays on broker {', '.join(map(str, current))}")


def _wrong_replicas(replicas: Sequence[int], factor: int, broker_ids: Sequence[int]) -> str:
    if not replicas:
        return "an empty replica list."
    for broker_id in sorted(replicas):
        if broker_id not in broker_ids:
            return f"broker {broker_id}, but no such broker is registered."
        if replicas.count(broker_id) > 1:
            return f"the broker {broker_id} more than once."
    if len(replicas) != factor:
        return (f"a partition with {len(replicas)} replica(s), but this is not consistent with previous partitions, "
                f"which have {factor} replica(s).")
    return ""
