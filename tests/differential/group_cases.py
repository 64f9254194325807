"""What groups are asked: offsets by hand and by members, a group of one member from its first JoinGroup to its end, admins."""

from __future__ import annotations

from typing import Any

from tests.differential.cases import Call, Case, case, saved, topic_id
from zafka.transport.kafka import messages as kafka
from zafka.transport.kafka.messages import offset_delete

SESSION_MS = 30_000
SUBSCRIPTION = b"\0\0" b"\0\0\0\1" b"\0\4read" b"\xff\xff\xff\xff"


# -- offsets -------------------------------------------------------------------------------------


def _commit(group: str, *parts: tuple[str, int, int], metadata: str | None = "m", **fields: Any) -> Any:
    """parts: (topic, partition, offset)."""
    return kafka.OffsetCommitRequest(group, topics=[
        kafka.OffsetCommitRequestTopic(topic_id(name), name, [
            kafka.OffsetCommitRequestPartition(number, offset, 3, metadata)]) for name, number, offset in parts], **fields)


def _fetch(group: str, *parts: tuple[str, int], everything: bool = False) -> Any:
    """In the form of every version."""
    several = [kafka.OffsetFetchRequestTopics(topic_id(name), name, [number]) for name, number in parts]
    one = [kafka.OffsetFetchRequestTopic(name, [number]) for name, number in parts]
    asked = kafka.OffsetFetchRequestGroup(group, None, -1, None if everything else several)
    return kafka.OffsetFetchRequest([asked], group, None if everything else one)


def _delete(group: str, *parts: tuple[str, int]) -> Any:
    return kafka.OffsetDeleteRequest(group, [
        offset_delete.OffsetDeleteRequestTopic(name, [offset_delete.OffsetDeleteRequestPartition(number)])
        for name, number in parts])


COMMITS = [
    case("by hand", _commit("hand-{v}", ("read", 0, 5), ("read", 1, 7)), Call(_fetch("hand-{v}", everything=True), version=7)),
    case("again, and back", _commit("again-{v}", ("read", 0, 5)), _commit("again-{v}", ("read", 0, 3)),
         Call(_fetch("again-{v}", ("read", 0)), version=7)),
    case("what is not there", _commit("hand-{v}", ("unknown", 0, 5), ("read", 7, 5), ("read", -1, 5), ("read", 0, 6))),
    case("only what is not there", _commit("none-{v}", ("unknown", 0, 5))),
    case("by a member of no group", _commit("no-{v}", ("read", 0, 5), generation_id_or_member_epoch=3, member_id="m")),
    case("by a member of a group without members", Call(_commit("simple-{v}", ("read", 0, 5)), version=5),
         _commit("simple-{v}", ("read", 0, 6), generation_id_or_member_epoch=3, member_id="m"),
         _commit("simple-{v}", ("read", 0, 6), member_id="m"), Call(_fetch("simple-{v}", ("read", 0)), version=7)),
    case("metadata", *(_commit("hand-{v}", ("read", 0, 5), metadata=text) for text in ("", "x" * 4096, "x" * 4097, None))),
    case("negative offsets", _commit("hand-{v}", ("read", 0, -1), ("read", 1, -7))),
    case("nothing", _commit("hand-{v}")),
    case("no name of a group", _commit("", ("read", 0, 5))),
]
FETCHES = [
    case("some", Call(_commit("f-{v}", ("read", 0, 5), ("read", 1, 6)), version=8), _fetch("f-{v}", ("read", 0), ("idem", 0))),
    case("all", _fetch("f-{v}", everything=True), _fetch("none", everything=True), versions=range(2, 20)),
    case("of no group", _fetch("none", ("read", 0))),
    case("what is not there", _fetch("f-{v}", ("unknown", 0), ("read", 7), ("read", -1))),
    case("nothing", _fetch("f-{v}")),
    case("several", kafka.OffsetFetchRequest([
        kafka.OffsetFetchRequestGroup("f-{v}", None, -1, None), kafka.OffsetFetchRequestGroup("none", None, -1, None)]),
        versions=range(8, 20)),
]
DELETES = [
    case("some", Call(_commit("d-{v}", ("read", 0, 5), ("read", 1, 6)), version=8), _delete("d-{v}", ("read", 0), ("idem", 0)),
         Call(_fetch("d-{v}", everything=True), version=7)),
    case("what is not there", _delete("d-{v}", ("unknown", 0), ("read", 7))),
    case("of no group", _delete("none", ("read", 0)), _delete("none")),
]


# -- members -------------------------------------------------------------------------------------


def _join(group: str, member_id: Any = "", *, protocol: str = "range", kind: str = "consumer", **fields: Any) -> Any:
    options = {"session_timeout_ms": SESSION_MS, "rebalance_timeout_ms": SESSION_MS, **fields}
    return kafka.JoinGroupRequest(
        group, member_id=member_id, protocol_type=kind, protocols=[kafka.JoinGroupRequestProtocol(protocol, SUBSCRIPTION)],
        **options)


def _sync(group: str, member_id: Any, generation: int = 1, **fields: Any) -> Any:
    options = {"protocol_type": "consumer", "protocol_name": "range", **fields}
    return kafka.SyncGroupRequest(
        group, generation, member_id, assignments=[kafka.SyncGroupRequestAssignment(member_id, b"mine")], **options)


def _member(group: str) -> Call:
    """One that joins at once, as before KIP-394."""
    return Call(_join(group), version=3, save=("member", "member_id"))


M = saved("member")

JOINS = [
    case("at once", Call(_join("j-{v}"), save=("member", "member_id")), _join("j-{v}", M), Call(_sync("j-{v}", M, 2), version=3),
         _join("j-{v}", M), versions=range(4)),
    case("with an id first", Call(_join("j-{v}"), save=("member", "member_id")), _join("j-{v}", M), _join("j-{v}", M),
         Call(_sync("j-{v}", M, 1), version=3), _join("j-{v}", M), versions=range(4, 20)),
    case("a static member", Call(_join("static-{v}", group_instance_id="i"), save=("member", "member_id")),
         Call(_sync("static-{v}", M, 1), version=3),
         Call(_join("static-{v}", group_instance_id="i"), save=("other", "member_id")),
         _join("static-{v}", M, group_instance_id="i"),
         Call(kafka.HeartbeatRequest("static-{v}", 1, M, "i"), version=3),
         Call(kafka.HeartbeatRequest("static-{v}", 1, saved("other"), "i"), version=3), versions=range(5, 20)),
    case("the id of a dynamic member, static", Call(_join("j3-{v}"), save=("member", "member_id")),
         _join("j3-{v}", M, group_instance_id="i"), Call(kafka.DescribeGroupsRequest(["j3-{v}"]), version=5),
         versions=range(5, 20)),
    case("protocols of none", _join("j4-{v}", kind=""), Call(kafka.DescribeGroupsRequest(["j4-{v}"]), version=5)),
    case("unknown members", _join("none-{v}", "nobody"), _member("j2-{v}"), _join("j2-{v}", "nobody")),
    case("sessions", *(_join("s-{v}", "nobody", session_timeout_ms=each) for each in (0, 5999, 1_800_001))),
    case("no name of a group", _join("", "nobody")),
    case("protocols", _member("p-{v}"), *(_join("p-{v}", M, protocol=name, kind=kind) for name, kind in (
        ("range", "connect"), ("sticky", "consumer"), ("range", "")))),
]
SYNCS = [
    case("alone", _member("sync-{v}"), _sync("sync-{v}", M), _sync("sync-{v}", M)),
    case("other generations", _member("sync2-{v}"), _sync("sync2-{v}", M, 0), _sync("sync2-{v}", M, 2)),
    case("unknown members", _sync("none-{v}", "nobody"), _member("sync3-{v}"), _sync("sync3-{v}", "nobody"), _sync("", "nobody")),
    case("protocols", _member("sync4-{v}"), *(
        _sync("sync4-{v}", M, protocol_type=kind, protocol_name=name)
        for kind, name in (("connect", "range"), ("consumer", "sticky"), (None, "range"), ("consumer", "range"))),
         versions=range(5, 20)),
]
HEARTBEATS = [
    case("of a member", _member("beat-{v}"), Call(_sync("beat-{v}", M), version=3), kafka.HeartbeatRequest("beat-{v}", 1, M),
         kafka.HeartbeatRequest("beat-{v}", 2, M), kafka.HeartbeatRequest("beat-{v}", 1, "nobody")),
    case("before the sync", _member("beat2-{v}"), kafka.HeartbeatRequest("beat2-{v}", 1, M)),
    case("of nobody", kafka.HeartbeatRequest("none-{v}", 1, "nobody"), kafka.HeartbeatRequest("", 1, "nobody")),
]


def _leave(group: str, member_id: Any, *others: Any) -> Any:
    return kafka.LeaveGroupRequest(
        group, [kafka.MemberIdentity(each, None, "why") for each in (member_id, *others)], member_id)


LEAVES = [
    case("a member", _member("leave-{v}"), Call(_sync("leave-{v}", M), version=3), _leave("leave-{v}", M),
         _leave("leave-{v}", M), Call(kafka.DescribeGroupsRequest(["leave-{v}"]), version=4)),
    case("nobody", _leave("none-{v}", "nobody"), _leave("", "nobody")),
    case("several", _member("leave2-{v}"), _leave("leave2-{v}", M, "nobody", ""), versions=range(3, 20)),
    case("by instance", Call(_join("leave3-{v}", group_instance_id="i"), version=5, save=("member", "member_id")),
         kafka.LeaveGroupRequest("leave3-{v}", [kafka.MemberIdentity("", "nobody"), kafka.MemberIdentity("", "i")]),
         versions=range(3, 20)),
]
MEMBERS_COMMIT = [
    case("by members", _member("mc-{v}"), _commit("mc-{v}", ("read", 0, 5), generation_id_or_member_epoch=1, member_id=M),
         Call(_sync("mc-{v}", M), version=3),
         _commit("mc-{v}", ("read", 0, 6), generation_id_or_member_epoch=1, member_id=M),
         _commit("mc-{v}", ("read", 0, 7), generation_id_or_member_epoch=0, member_id=M),
         _commit("mc-{v}", ("read", 0, 7), generation_id_or_member_epoch=1, member_id="nobody"),
         _commit("mc-{v}", ("read", 0, 7)), Call(_fetch("mc-{v}", ("read", 0)), version=7)),
    case("offsets of a member", _member("mc0-{v}"), Call(_sync("mc0-{v}", M), version=3), _delete("mc0-{v}", ("read", 0), ("idem", 0))),
]


# -- administration ------------------------------------------------------------------------------


ADMIN = [
    case("one by hand", Call(_commit("by-hand-{v}", ("read", 0, 5)), version=5),
         kafka.DescribeGroupsRequest(["by-hand-{v}", "none"]), kafka.DescribeGroupsRequest(["by-hand-{v}"], True)),
    case("one member", _member("one-{v}"), kafka.DescribeGroupsRequest(["one-{v}"]), Call(_sync("one-{v}", M), version=3),
         kafka.DescribeGroupsRequest(["one-{v}"])),
    case("one to be joined with an id", Call(_join("id-{v}"), version=4, save=("member", "member_id")),
         kafka.DescribeGroupsRequest(["id-{v}"]), Call(_leave("id-{v}", M), version=3), kafka.DescribeGroupsRequest(["id-{v}"])),
    case("one twice, and none", kafka.DescribeGroupsRequest(["by-hand-{v}", "by-hand-{v}"]), kafka.DescribeGroupsRequest([])),
    case("one by hand", kafka.DeleteGroupsRequest(["by-hand-{v}", "none"]), kafka.DeleteGroupsRequest(["by-hand-{v}"])),
    case("one with a member", _member("full-{v}"), kafka.DeleteGroupsRequest(["full-{v}"]),
         Call(_leave("full-{v}", M), version=2), kafka.DeleteGroupsRequest(["full-{v}"])),
    case("none", kafka.DeleteGroupsRequest([])),
    case("all", kafka.ListGroupsRequest()),
    case("states", *(kafka.ListGroupsRequest([state]) for state in ("Empty", "stable", "NoSuch")), versions=range(4, 20)),
    case("types", *(kafka.ListGroupsRequest([], [kind]) for kind in ("classic", "Consumer", "NoSuch")), versions=range(5, 20)),
]

def _beat(group: str, member_id: str, epoch: int, **fields: Any) -> Any:
    """What a member of a KIP-848 group says; everything in a first heartbeat."""
    options = {"rebalance_timeout_ms": 5000, "subscribed_topic_names": ["read"], "topic_partitions": [], **fields}
    return kafka.ConsumerGroupHeartbeatRequest(group, member_id, epoch, **options)


MEMBER = "4fA2bCdEQ6K7hJ8kL9mN0p"
CONSUMER_GROUPS = [
    case("a member, alone, from its first to its last", _beat("kip-{v}", MEMBER, 0), _beat("kip-{v}", MEMBER, 0),
         Call(kafka.ConsumerGroupDescribeRequest(["kip-{v}"]), version=1), _beat("kip-{v}", MEMBER, 7), _beat("kip-{v}", MEMBER, -1),
         Call(kafka.ConsumerGroupDescribeRequest(["kip-{v}"]), version=1), Call(kafka.DeleteGroupsRequest(["kip-{v}"]), version=2)),
    *(case(title, request) for title, request in (
        ("of nobody", _beat("none", MEMBER, 3)), ("a last one of nobody", _beat("none", MEMBER, -1)),
        ("a static leave of nobody", _beat("none", MEMBER, -2, instance_id="i")), ("no name of a group", _beat("", MEMBER, 0)),
        ("an epoch that is none", _beat("none", MEMBER, -3)), ("an empty instance", _beat("none", MEMBER, 0, instance_id="")),
        ("an empty rack", _beat("none", MEMBER, 0, rack_id="")), ("no time", _beat("none", MEMBER, 0, rebalance_timeout_ms=-1)),
        ("no partitions said", _beat("none", MEMBER, 0, topic_partitions=None)),
        ("no topics", _beat("none", MEMBER, 0, subscribed_topic_names=None)),
        ("an unknown assignor", _beat("none", MEMBER, 0, server_assignor="no such")))),
    case("groups that are not there", kafka.ConsumerGroupDescribeRequest(["none", ""]), kafka.ConsumerGroupDescribeRequest([])),
]

CASES: list[Case] = [*COMMITS, *FETCHES, *DELETES, *JOINS, *SYNCS, *HEARTBEATS, *LEAVES, *MEMBERS_COMMIT, *ADMIN, *CONSUMER_GROUPS]
