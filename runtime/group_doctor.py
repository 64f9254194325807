"""What is wrong with groups of consumers at an address, as an administrator sees it.

Owns: `check_groups`, which asks, and `judge_group`, which decides and is pure. Raises the client's errors.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING

from zafka.client.errors import BrokerRefused
from zafka.runtime.findings import Finding

if TYPE_CHECKING:
    from zafka.client.admin import Admin, ClusterInfo, GroupInfo
    from zafka.client.consumer import Consumer
    from zafka.client.records import TopicPartition

REBALANCING = ("PreparingRebalance", "CompletingRebalance", "Assigning", "Reconciling")
SETTLES_S = 5.0  # a rebalance that is seen for so long is told
LOOK_AGAIN_S = 0.2
NAMED = 3  # of many partitions or members


def check_groups(admin: Admin, consumer: Consumer, cluster: ClusterInfo, group: str | None) -> Iterator[Finding]:
    """group: this one only, and where its members are sent."""
    if group is not None:
        yield told_coordinator(admin, cluster, group)
    known = [each.group_id for each in admin.list_groups() if each.is_known and group in (None, each.group_id)]
    if group is not None and not known:
        yield Finding("warning", f"group {group}", "there is no such group now; its first member makes it")
    there = set(consumer.topics())
    for name in known:
        try:
            info = settled(admin, name)
        except BrokerRefused as refused:  # gone since it was listed, or of a kind that its brokers do not describe now
            yield Finding("warning", f"group {name}", str(refused))
            continue
        committed = admin.list_group_offsets(name)
        end = consumer.end_offsets([where for where in committed if where.topic in there])
        yield from judge_group(info, committed, end, there)


def told_coordinator(admin: Admin, cluster: ClusterInfo, group: str) -> Finding:
    broker_id = admin.coordinator_of(group)
    addresses = {broker.broker_id: broker.address for broker in cluster.brokers}
    where = f"broker {broker_id}" + (f" at {addresses[broker_id]}" if broker_id in addresses else "")
    if broker_id not in addresses:
        return Finding("problem", f"group {group}", f"clients are sent to {where}, which is not among the brokers")
    return Finding("ok", f"group {group}", f"clients are sent to {where}, its coordinator")


def settled(admin: Admin, name: str) -> GroupInfo:
    """The group as it is after a rebalance, or as it still is after `SETTLES_S`."""
    deadline_s = time.monotonic() + SETTLES_S
    while True:
        info = admin.describe_groups(name)[0]
        if info.state not in REBALANCING or time.monotonic() > deadline_s:
            return info
        threading.Event().wait(LOOK_AGAIN_S)


def judge_group(
    info: GroupInfo, committed: Mapping[TopicPartition, int], end: Mapping[TopicPartition, int], there: Collection[str]
) -> Iterator[Finding]:
    """committed: its offsets. end: of the same partitions, as far as they exist. there: all topics. Pure."""
    subject = f"group {info.group_id}"
    found = list(_problems(info, committed, end, there))
    for text in found:
        yield Finding("warning", subject, text)
    if not found:
        lag = sum(max(0, last - committed[where]) for where, last in end.items())
        yield Finding("ok", subject, f"{info.state}, {len(info.members)} members, lag {lag}")


def _problems(
    info: GroupInfo, committed: Mapping[TopicPartition, int], end: Mapping[TopicPartition, int], there: Collection[str]
) -> Iterator[str]:
    if info.state in REBALANCING:
        yield (f"in {info.state} for longer than {SETTLES_S:g} s: a member does not come back to the rebalance, or members "
               "come and go")
    gone = sorted({where.topic for where in committed} - set(there))
    if gone:
        yield f"has committed offsets of topics that do not exist: {_some(gone)}"
    behind = sorted(where for where, last in end.items() if last > committed[where])
    if behind and not info.members:
        lag = sum(end[where] - committed[where] for where in behind)
        yield f"nobody reads {lag} records behind its offsets, in {_some([f'{each.topic}-{each.partition}' for each in behind])}"
    if not committed and info.members:
        yield "has members and no committed offsets: after a restart they begin where auto.offset.reset says"
    idle = [each.client_id or each.member_id for each in info.members if not each.assignment]
    if idle and info.state not in REBALANCING:
        yield f"{len(idle)} of {len(info.members)} members have no partition: {_some(idle)}; there are more members than partitions"


def _some(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
