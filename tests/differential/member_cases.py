"""Groups of several members: of the classic protocol, of KIP-848, and of both.

A case runs at each version of the API whose first call has none; the rest goes at one version each. Who has to wait for others
has a connection of its own. Kafka keeps a group's epoch from one request to the next as we do, so epochs are equal.
"""

from __future__ import annotations

import struct
from typing import Any

from tests.differential.cases import Call, Case, Late, case, saved, topic_id
from tests.differential.group_requests import A, B, C, M, beat, commit, fetch_offsets, join, leave, member, sync
from zafka.transport.kafka import messages as kafka
from zafka.transport.kafka.messages import consumer_group_heartbeat

REBALANCE_IN_PROGRESS = 27
OTHER = saved("other")


# -- classic: two members --------------------------------------------------------------------------------------


def _told_to_join(group: str, member_id: Any, generation: int) -> Call:
    """The member hears that somebody else has come, or gone."""
    return Call(kafka.HeartbeatRequest(group, generation, member_id), version=3, until=REBALANCE_IN_PROGRESS)


def _both(group: str) -> list[Any]:
    """Two members, synced, of generation 2; the first leads. The second one's connection is "b"."""
    return [
        member(group), Call(sync(group, M), version=3),
        Call(join(group), version=3, on="b", waits=True), _told_to_join(group, M, 1),
        Call(join(group, M), version=3), Late("b", save=("other", "member_id")), *_synced(group, 2)]


def _synced(group: str, generation: int) -> list[Any]:
    assigned = [kafka.SyncGroupRequestAssignment(M, b"first"), kafka.SyncGroupRequestAssignment(OTHER, b"second")]
    return [
        Call(kafka.SyncGroupRequest(group, generation, OTHER, assignments=[]), version=3, on="b", waits=True),
        Call(kafka.SyncGroupRequest(group, generation, M, assignments=assigned), version=3), Late("b")]


TWO_MEMBERS = [
    case("two members", member("two-{v}"), Call(sync("two-{v}", M), version=3), Call(join("two-{v}"), on="b", waits=True),
         _told_to_join("two-{v}", M, 1), Call(kafka.DescribeGroupsRequest(["two-{v}"]), version=5), join("two-{v}", M),
         Late("b", save=("other", "member_id")), Call(kafka.DescribeGroupsRequest(["two-{v}"]), version=5),
         *_synced("two-{v}", 2), Call(kafka.DescribeGroupsRequest(["two-{v}"]), version=5), join("two-{v}", OTHER), versions=range(4)),
    case("a second one with an id first", member("id2-{v}"), Call(sync("id2-{v}", M), version=3),
         Call(join("id2-{v}"), save=("other", "member_id")), Call(kafka.HeartbeatRequest("id2-{v}", 1, M), version=3),
         Call(join("id2-{v}", OTHER), on="b", waits=True), _told_to_join("id2-{v}", M, 1), join("id2-{v}", M), Late("b"),
         *_synced("id2-{v}", 2), join("id2-{v}", OTHER), versions=range(4, 20)),
    case("a leader that is to join again", *_both("lead-{v}"), Call(join("lead-{v}", M), on="a", waits=True),
         Call(kafka.HeartbeatRequest("lead-{v}", 2, OTHER), version=3, until=REBALANCE_IN_PROGRESS),
         join("lead-{v}", OTHER), Late("a")),
    case("metadata that changed", *_both("meta-{v}"), Call(join("meta-{v}", OTHER, metadata=b"\0\1"), on="b", waits=True),
         _told_to_join("meta-{v}", M, 2), join("meta-{v}", M), Late("b")),
    case("protocols in common", member("common-{v}"), Call(sync("common-{v}", M), version=3),
         join("common-{v}", protocol="other"), join("common-{v}", kind="connect"), join("common-{v}", M, protocol="other")),
    case("a static member that comes anew", Call(join("anew-{v}", group_instance_id="i"), version=5, save=("member", "member_id")),
         Call(sync("anew-{v}", M), version=3), Call(join("anew-{v}", group_instance_id="j"), version=5, on="b", waits=True),
         _told_to_join("anew-{v}", M, 1), Call(join("anew-{v}", M, group_instance_id="i"), version=5),
         Late("b", save=("other", "member_id")), *_synced("anew-{v}", 2),
         Call(join("anew-{v}", group_instance_id="i"), save=("newer", "member_id")),
         Call(join("anew-{v}", group_instance_id="j"), save=("newer other", "member_id")),
         Call(kafka.HeartbeatRequest("anew-{v}", 2, M, "i"), version=3),
         Call(sync("anew-{v}", saved("newer other"), 2), version=3),
         Call(kafka.DescribeGroupsRequest(["anew-{v}"]), version=5), versions=range(5, 20)),
]
TWO_SYNC = [
    case("the second one first, and none for it", *_both("s1-{v}")[:6],
         Call(kafka.SyncGroupRequest("s1-{v}", 2, OTHER, None, "consumer", "range", []), on="b", waits=True),
         kafka.SyncGroupRequest("s1-{v}", 2, M, None, "consumer", "range", [
             kafka.SyncGroupRequestAssignment("nobody", b"x"), kafka.SyncGroupRequestAssignment(M, b"y")]), Late("b"),
         kafka.SyncGroupRequest("s1-{v}", 2, OTHER, None, "consumer", "range", [])),
    case("while somebody is to join", *_both("s2-{v}"), Call(leave("s2-{v}", OTHER), version=3, on="b"),
         sync("s2-{v}", M, 2), Call(commit("s2-{v}", ("read", 0, 5), generation_id_or_member_epoch=2, member_id=M), version=6)),
    case("a rebalance while they wait", *_both("s3-{v}")[:6],
         Call(kafka.SyncGroupRequest("s3-{v}", 2, OTHER, None, "consumer", "range", []), on="b", waits=True),
         Call(leave("s3-{v}", M), version=3), Late("b")),
]
TWO_LEAVE = [
    case("one of two", *_both("l1-{v}"), leave("l1-{v}", OTHER), Call(kafka.HeartbeatRequest("l1-{v}", 2, M), version=3),
         Call(kafka.HeartbeatRequest("l1-{v}", 2, OTHER), version=3), Call(join("l1-{v}", M), version=3),
         Call(kafka.DescribeGroupsRequest(["l1-{v}"]), version=5)),
    case("the leader of two", *_both("l2-{v}"), leave("l2-{v}", M), Call(join("l2-{v}", OTHER), version=3, on="b"),
         Call(kafka.DescribeGroupsRequest(["l2-{v}"]), version=5)),
    case("both at once, with reasons", *_both("l3-{v}"), leave("l3-{v}", M, OTHER, "nobody"),
         Call(kafka.DescribeGroupsRequest(["l3-{v}"]), version=5), versions=range(3, 20)),
    case("one that has only an id", member("l4-{v}"), Call(sync("l4-{v}", M), version=3),
         Call(join("l4-{v}"), version=4, save=("other", "member_id")), leave("l4-{v}", OTHER),
         Call(kafka.HeartbeatRequest("l4-{v}", 1, M), version=3)),
    case("a static one, by id and instance", Call(join("l5-{v}", group_instance_id="i"), version=5, save=("member", "member_id")),
         Call(sync("l5-{v}", M), version=3),
         *(kafka.LeaveGroupRequest("l5-{v}", [kafka.MemberIdentity(*each)]) for each in (
             ("nobody", "i"), (M, "j"), (M, "i", "x" * 300), (M, "i"))), versions=range(3, 20)),
]


# -- KIP-848: static members, subscriptions, what they say they have --------------------------------------------


def _owned(*numbers: int, topic: str = "read") -> Any:
    return [consumer_group_heartbeat.TopicPartitions(topic_id(topic), list(numbers))]


def _quiet(group: str, member_id: Any, epoch: Any, **fields: Any) -> Any:
    """A heartbeat of a member of which nothing has changed."""
    return kafka.ConsumerGroupHeartbeatRequest(group, member_id, epoch, **fields)


def _described(group: str) -> list[Call]:
    return [Call(kafka.ConsumerGroupDescribeRequest([group]), version=1), Call(kafka.DescribeGroupsRequest([group]), version=6)]


MODERN = [
    case("two, one after the other", beat("m1-{v}", A, 0), beat("m1-{v}", B, 0), *_described("m1-{v}"),
         _quiet("m1-{v}", A, 2, topic_partitions=_owned(0, 1)), *_described("m1-{v}"), _quiet("m1-{v}", B, 3),
         _quiet("m1-{v}", A, 2, topic_partitions=_owned(0)), _quiet("m1-{v}", B, 3, topic_partitions=[]),
         *_described("m1-{v}"), _quiet("m1-{v}", A, -1), _quiet("m1-{v}", B, 3, topic_partitions=_owned(1)), *_described("m1-{v}")),
    case("static, away and back", beat("m2-{v}", A, 0, instance_id="i"), _quiet("m2-{v}", A, -2, instance_id="i"),
         *_described("m2-{v}"), beat("m2-{v}", B, 0, instance_id="i"), beat("m2-{v}", C, 0, instance_id="i"),
         _quiet("m2-{v}", A, 2, instance_id="i"), _quiet("m2-{v}", B, 2, instance_id="j"), _quiet("m2-{v}", B, 2),
         _quiet("m2-{v}", A, -1, instance_id="i"), _quiet("m2-{v}", B, -1, instance_id="i"), *_described("m2-{v}")),
    case("another subscription", beat("m3-{v}", A, 0), beat("m3-{v}", A, 2, subscribed_topic_names=["idem"], topic_partitions=_owned(0, 1)),
         _quiet("m3-{v}", A, 2, topic_partitions=[]), *_described("m3-{v}"), _quiet("m3-{v}", A, 3, subscribed_topic_names=[]),
         _quiet("m3-{v}", A, 3, subscribed_topic_names=["no such", "read", "read"])),
    case("to nothing, and to what is not there", beat("m4-{v}", A, 0, subscribed_topic_names=[]),
         beat("m4-{v}", B, 0, subscribed_topic_names=["no such", ""]), *_described("m4-{v}")),
    case("epochs behind and ahead", beat("m5-{v}", A, 0), _quiet("m5-{v}", A, 2, subscribed_topic_names=["idem", "read"]),
         _quiet("m5-{v}", A, 2), _quiet("m5-{v}", A, 2, topic_partitions=_owned(7)), _quiet("m5-{v}", A, 2, topic_partitions=_owned(0)),
         _quiet("m5-{v}", A, 4), _quiet("m5-{v}", A, 1, topic_partitions=[]), beat("m5-{v}", A, 0)),
    case("assignors", beat("m6-{v}", A, 0, server_assignor="range"), *_described("m6-{v}"),
         _quiet("m6-{v}", A, 2, server_assignor="uniform"), *_described("m6-{v}"), _quiet("m6-{v}", A, 2, server_assignor="")),
    case("an id of its own or none", Call(beat("m7-{v}", "", 0), save=("member", "member_id")), _quiet("m7-{v}", M, 2), versions=range(1)),
    case("a rack, a time", beat("m8-{v}", A, 0, rack_id="r", rebalance_timeout_ms=0), _quiet("m8-{v}", A, 2, rack_id="other"),
         *_described("m8-{v}")),
    case("what it says it has is not there", beat("m9-{v}", A, 0), _quiet("m9-{v}", A, 2, topic_partitions=[
        consumer_group_heartbeat.TopicPartitions(bytes(16), [0]), consumer_group_heartbeat.TopicPartitions(topic_id("idem"), [9])])),
    case("bad expressions", *(beat("m10-{v}", A, 0, subscribed_topic_names=None, subscribed_topic_regex=each) for each in (
        "(", "a{2,1}", "[z-a]", "(?P<x", "*")), versions=range(1, 9)),
    case("no expression", beat("m11-{v}", A, 0, subscribed_topic_regex=""), _quiet("m11-{v}", A, 2, subscribed_topic_regex=""),
         *_described("m11-{v}"), versions=range(1, 9)),
    case("a group that was classic, with nobody in it", member("m12-{v}"), Call(leave("m12-{v}", M), version=2),
         beat("m12-{v}", A, 3), beat("m12-{v}", A, 0), *_described("m12-{v}"), _quiet("m12-{v}", A, -1), *_described("m12-{v}"),
         Call(join("m12-{v}"), version=3, save=("member", "member_id")), *_described("m12-{v}")),
    case("a group with offsets alone", Call(commit("m13-{v}", ("read", 0, 5)), version=5), *_described("m13-{v}"),
         beat("m13-{v}", A, 0), *_described("m13-{v}"), Call(fetch_offsets("m13-{v}", ("read", 0)), version=7)),
]


def _fetch_as(group: str, member_id: str | None, epoch: int) -> Any:
    return kafka.OffsetFetchRequest([kafka.OffsetFetchRequestGroup(group, member_id, epoch, [
        kafka.OffsetFetchRequestTopics(topic_id("read"), "read", [0])])])


def _commit_as(group: str, member_id: Any, epoch: int, *numbers: int) -> Any:
    return commit(group, *(("read", number, 5) for number in numbers), generation_id_or_member_epoch=epoch, member_id=member_id)


MODERN_COMMITS = [
    case("by KIP-848 members", Call(beat("mc1-{v}", A, 0), version=1), _commit_as("mc1-{v}", A, 2, 0, 1), _commit_as("mc1-{v}", A, 1, 0),
         _commit_as("mc1-{v}", A, 3, 0), _commit_as("mc1-{v}", "nobody", 2, 0), _commit_as("mc1-{v}", "", -1, 0),
         _commit_as("mc1-{v}", A, -1, 0), Call(fetch_offsets("mc1-{v}", ("read", 0)), version=7)),
    case("by one that is behind, of what it had and of what it had not", Call(beat("mc2-{v}", A, 0, subscribed_topic_names=["idem"]), version=1),
         Call(_quiet("mc2-{v}", A, 2, subscribed_topic_names=["idem", "read"]), version=1),
         commit("mc2-{v}", ("idem", 0, 5), generation_id_or_member_epoch=2, member_id=A),
         commit("mc2-{v}", ("idem", 1, 5), ("read", 0, 5), generation_id_or_member_epoch=2, member_id=A),
         Call(fetch_offsets("mc2-{v}", everything=True), version=7)),
]
MODERN_FETCHES = [
    case("by KIP-848 members", Call(beat("mf1-{v}", A, 0), version=1), *(_fetch_as("mf1-{v}", *each) for each in (
        (A, 2), (A, 1), (A, -1), (None, -1), ("", -1), ("nobody", 2))), versions=range(9, 20)),
    case("by members of the classic protocol", member("mf2-{v}"), *(_fetch_as("mf2-{v}", *each) for each in (
        ("nobody", 7), ("", -1))), versions=range(9, 20)),
]


# -- both in one group ------------------------------------------------------------------------------------------


def _text(value: str) -> bytes:
    return struct.pack(">h", len(value)) + value.encode()


def _names(*topics: str) -> bytes:
    return struct.pack(">i", len(topics)) + b"".join(map(_text, topics))


def _places(topic: str, *numbers: int) -> bytes:
    return _text(topic) + struct.pack(f">i{len(numbers)}i", len(numbers), *numbers)


def _subscription(*owned: int, topics: tuple[str, ...] = ("read",)) -> bytes:
    """Version 1, which says what the member has."""
    has = struct.pack(">i", 1) + _places("read", *owned) if owned else struct.pack(">i", 0)
    return struct.pack(">h", 1) + _names(*topics) + struct.pack(">i", -1) + has


ALL = struct.pack(">hi", 1, 1) + _places("read", 0, 1) + struct.pack(">i", -1)


def _classic(group: str, member_id: Any = "", *owned: int, metadata: bytes | None = None, **fields: Any) -> Any:
    return join(group, member_id, metadata=_subscription(*owned) if metadata is None else metadata, **fields)


def _upgraded(group: str, **fields: Any) -> list[Any]:
    """A classic member with everything, and a KIP-848 member that came to it and waits for its part."""
    return [
        Call(_classic(group, **fields), version=3 if not fields else 5, save=("member", "member_id")),
        Call(kafka.SyncGroupRequest(group, 1, M, assignments=[kafka.SyncGroupRequestAssignment(M, ALL)]), version=3),
        Call(beat(group, A, 0), version=1)]


def _classic_beat(group: str, generation: int, *, member_id: Any = M) -> Call:
    return Call(kafka.HeartbeatRequest(group, generation, member_id), version=3)


def _classic_sync(group: str, generation: int, **fields: Any) -> Call:
    return Call(sync(group, M, generation, **fields), version=5)


def _shared(group: str) -> list[Any]:
    """Both have what they are to have, at epoch 2."""
    return [
        *_upgraded(group), Call(_classic(group, M, 0, 1), version=3), _classic_sync(group, 1), Call(_classic(group, M, 0), version=3),
        _classic_sync(group, 2), Call(_quiet(group, A, 2, topic_partitions=[]), version=1)]


MIXED_JOINS = [
    case("a KIP-848 member comes to a classic one", *_upgraded("x1-{v}"), *_described("x1-{v}"), _classic_beat("x1-{v}", 1),
         _classic_beat("x1-{v}", 2), _classic("x1-{v}", M, 0, 1), *_described("x1-{v}"), _classic_sync("x1-{v}", 1),
         _classic_beat("x1-{v}", 1), _classic("x1-{v}", M, 0), _classic_sync("x1-{v}", 2),
         Call(_quiet("x1-{v}", A, 2, topic_partitions=[]), version=1), *_described("x1-{v}"), _classic_beat("x1-{v}", 2)),
    case("a classic member comes to a KIP-848 one", Call(beat("x2-{v}", A, 0), version=1),
         Call(_classic("x2-{v}"), save=("member", "member_id")), *_described("x2-{v}"),
         Call(_quiet("x2-{v}", A, 2, topic_partitions=_owned(0, 1)), version=1),
         Call(_quiet("x2-{v}", A, 2, topic_partitions=_owned(0)), version=1), _classic_beat("x2-{v}", 3), _classic_sync("x2-{v}", 3),
         _classic("x2-{v}", M), _classic_sync("x2-{v}", 3), *_described("x2-{v}"), versions=range(4)),
    case("a classic member with an id first", Call(beat("x3-{v}", A, 0), version=1),
         Call(_classic("x3-{v}"), save=("member", "member_id")), *_described("x3-{v}"), _classic("x3-{v}", M), *_described("x3-{v}"),
         versions=range(4, 20)),
    case("classic members that may not come", Call(beat("x4-{v}", A, 0), version=1), _classic("x4-{v}", kind="connect"),
         _classic("x4-{v}", "nobody", metadata=b""), _classic("x4-{v}", "nobody", session_timeout_ms=1),
         kafka.JoinGroupRequest("x4-{v}", 30_000, 30_000, "nobody", None, "consumer", []), *_described("x4-{v}")),
    case("protocols that not all know", *_shared("x5-{v}"), _classic("x5-{v}", "nobody", protocol="sticky"),
         _classic("x5-{v}", M, 0, protocol="sticky"), *_described("x5-{v}")),
    case("a KIP-848 member may not come to others", Call(join("x6-{v}", kind="connect"), version=3, save=("member", "member_id")),
         Call(beat("x6-{v}", A, 0), version=1), *_described("x6-{v}"), join("x6-{v}", M, kind="connect")),
    case("a static member changes its protocol", *_upgraded("x7-{v}", group_instance_id="i"), *_described("x7-{v}"),
         Call(beat("x7-{v}", B, 0, instance_id="i"), version=1), *_described("x7-{v}"),
         Call(_classic("x7-{v}", group_instance_id="i"), save=("member", "member_id")), *_described("x7-{v}"),
         Call(_classic("x7-{v}", "nobody", group_instance_id="i")), Call(_classic("x7-{v}", "nobody", group_instance_id="j")),
         versions=range(5, 20)),
    case("the last KIP-848 member comes back as a classic one", Call(beat("x8-{v}", A, 0, instance_id="i"), version=1),
         Call(_classic("x8-{v}", group_instance_id="i"), save=("member", "member_id")), *_described("x8-{v}"),
         Call(sync("x8-{v}", M, 2), version=3), *_described("x8-{v}"), versions=range(5, 20)),
    case("unreadable subscriptions of a classic group", Call(join("x9-{v}", metadata=b"\0"), version=3, save=("member", "member_id")),
         Call(sync("x9-{v}", M), version=3), Call(beat("x9-{v}", A, 0), version=1), *_described("x9-{v}"), join("x9-{v}", "nobody")),
]
MIXED_SYNCS = [
    case("in a mixed group", *_shared("y1-{v}"), sync("y1-{v}", M, 2), sync("y1-{v}", M, 1), sync("y1-{v}", M, 3), sync("y1-{v}", A, 2),
         sync("y1-{v}", "nobody", 2), sync("y1-{v}", M, 2, group_instance_id="i"), sync("y1-{v}", M, 2, protocol_name="sticky"),
         sync("y1-{v}", M, 2, protocol_type="connect"), Call(beat("y1-{v}", B, 0), version=1), sync("y1-{v}", M, 2)),
]
MIXED_BEATS = [
    case("in a mixed group", *_shared("z1-{v}"), *(kafka.HeartbeatRequest("z1-{v}", *each) for each in (
        (2, M), (1, M), (3, M), (2, A), (2, "nobody"), (2, M, "i"))), Call(beat("z1-{v}", B, 0), version=1),
         kafka.HeartbeatRequest("z1-{v}", 2, M)),
]
MIXED_LEAVES = [
    case("the classic one of a mixed group", *_shared("w1-{v}"), leave("w1-{v}", "nobody"), leave("w1-{v}", M), *_described("w1-{v}"),
         leave("w1-{v}", M), Call(_quiet("w1-{v}", A, 2), version=1), *_described("w1-{v}")),
    case("the KIP-848 one, by an admin", *_shared("w2-{v}"), leave("w2-{v}", A), *_described("w2-{v}"),
         Call(_quiet("w2-{v}", A, 2), version=1), _classic_beat("w2-{v}", 2), Call(_classic("w2-{v}", M, 0), version=3), *_described("w2-{v}")),
    case("a KIP-848 one that is alone", Call(beat("w3-{v}", A, 0), version=1), leave("w3-{v}", A), *_described("w3-{v}")),
    case("static ones, by an admin", Call(beat("w4-{v}", A, 0, instance_id="i"), version=1), Call(beat("w4-{v}", B, 0, instance_id="j"), version=1),
         *(kafka.LeaveGroupRequest("w4-{v}", [kafka.MemberIdentity(*each)]) for each in (
             ("", "nobody"), ("nobody", "i"), ("", "i"), ("", "i"), (B, "j"))), *_described("w4-{v}"), versions=range(3, 20)),
    case("all of a mixed group at once", *_shared("w5-{v}"), leave("w5-{v}", M, A, "nobody"), *_described("w5-{v}"), versions=range(3, 20)),
]
MIXED_COMMITS = [
    case("in a mixed group", *_shared("v1-{v}"), _commit_as("v1-{v}", M, 2, 0), _commit_as("v1-{v}", M, 1, 0), _commit_as("v1-{v}", M, 3, 0),
         _commit_as("v1-{v}", A, 2, 0), _commit_as("v1-{v}", A, 1, 0), _commit_as("v1-{v}", "nobody", 2, 0), _commit_as("v1-{v}", "", -1, 0)),
    case("by a classic member that is behind", *_upgraded("v2-{v}"), Call(_classic("v2-{v}", M, 0, 1), version=3), _classic_sync("v2-{v}", 1),
         _commit_as("v2-{v}", M, 1, 0, 1), _commit_as("v2-{v}", M, 0, 0),
         Call(_classic("v2-{v}", M, 0), version=3), _commit_as("v2-{v}", M, 1, 0), _commit_as("v2-{v}", M, 1, 0, 1)),
]
MIXED_ENDS = [
    case("the last KIP-848 member leaves", *_shared("u1-{v}"), _quiet("u1-{v}", A, -1), *_described("u1-{v}"), _classic_beat("u1-{v}", 2),
         Call(_classic("u1-{v}", M, 0), version=3), Call(sync("u1-{v}", M, 3), version=3), *_described("u1-{v}")),
    case("a KIP-848 member of a classic group", member("u2-{v}"), _quiet("u2-{v}", A, 3), _quiet("u2-{v}", A, -1),
         _quiet("u2-{v}", M, 1), *_described("u2-{v}")),
    case("in a mixed group", *_shared("u3-{v}"), _quiet("u3-{v}", M, 2), _quiet("u3-{v}", "nobody", 2), _quiet("u3-{v}", A, 2),
         Call(kafka.ListGroupsRequest([], ["consumer"]), version=5)),
]

CASES: list[Case] = [
    *TWO_MEMBERS, *TWO_SYNC, *TWO_LEAVE, *MODERN, *MODERN_COMMITS, *MODERN_FETCHES, *MIXED_JOINS, *MIXED_SYNCS, *MIXED_BEATS,
    *MIXED_LEAVES, *MIXED_COMMITS, *MIXED_ENDS]
