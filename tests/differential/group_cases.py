"""What groups are asked: offsets by hand and by members, a group of one member from its first JoinGroup to its end, admins."""

from __future__ import annotations

from tests.differential.cases import Call, Case, case, saved
from tests.differential.group_requests import (
    MEMBER,
    M,
    beat,
    commit,
    delete_offsets,
    fetch_offsets,
    join,
    leave,
    member,
    sync,
)
from zafka.transport.kafka import messages as kafka

# -- offsets -------------------------------------------------------------------------------------


COMMITS = [
    case("by hand", commit("hand-{v}", ("read", 0, 5), ("read", 1, 7)), Call(fetch_offsets("hand-{v}", everything=True), version=7)),
    case("again, and back", commit("again-{v}", ("read", 0, 5)), commit("again-{v}", ("read", 0, 3)),
         Call(fetch_offsets("again-{v}", ("read", 0)), version=7)),
    case("what is not there", commit("hand-{v}", ("unknown", 0, 5), ("read", 7, 5), ("read", -1, 5), ("read", 0, 6))),
    case("only what is not there", commit("none-{v}", ("unknown", 0, 5))),
    case("by a member of no group", commit("no-{v}", ("read", 0, 5), generation_id_or_member_epoch=3, member_id="m")),
    case("by a member of a group without members", Call(commit("simple-{v}", ("read", 0, 5)), version=5),
         commit("simple-{v}", ("read", 0, 6), generation_id_or_member_epoch=3, member_id="m"),
         commit("simple-{v}", ("read", 0, 6), member_id="m"), Call(fetch_offsets("simple-{v}", ("read", 0)), version=7)),
    case("metadata", *(commit("hand-{v}", ("read", 0, 5), metadata=text) for text in ("", "x" * 4096, "x" * 4097, None))),
    case("negative offsets", commit("hand-{v}", ("read", 0, -1), ("read", 1, -7))),
    case("nothing", commit("hand-{v}")),
    case("no name of a group", commit("", ("read", 0, 5))),
]
FETCHES = [
    case("some", Call(commit("f-{v}", ("read", 0, 5), ("read", 1, 6)), version=8), fetch_offsets("f-{v}", ("read", 0), ("idem", 0))),
    case("all", fetch_offsets("f-{v}", everything=True), fetch_offsets("none", everything=True), versions=range(2, 20)),
    case("of no group", fetch_offsets("none", ("read", 0))),
    case("what is not there", fetch_offsets("f-{v}", ("unknown", 0), ("read", 7), ("read", -1))),
    case("nothing", fetch_offsets("f-{v}")),
    case("several", kafka.OffsetFetchRequest([
        kafka.OffsetFetchRequestGroup("f-{v}", None, -1, None), kafka.OffsetFetchRequestGroup("none", None, -1, None)]),
        versions=range(8, 20)),
]
DELETES = [
    case("some", Call(commit("d-{v}", ("read", 0, 5), ("read", 1, 6)), version=8), delete_offsets("d-{v}", ("read", 0), ("idem", 0)),
         Call(fetch_offsets("d-{v}", everything=True), version=7)),
    case("what is not there", delete_offsets("d-{v}", ("unknown", 0), ("read", 7))),
    case("of no group", delete_offsets("none", ("read", 0)), delete_offsets("none")),
]


# -- members -------------------------------------------------------------------------------------


JOINS = [
    case("at once", Call(join("j-{v}"), save=("member", "member_id")), join("j-{v}", M), Call(sync("j-{v}", M, 2), version=3),
         join("j-{v}", M), versions=range(4)),
    case("with an id first", Call(join("j-{v}"), save=("member", "member_id")), join("j-{v}", M), join("j-{v}", M),
         Call(sync("j-{v}", M, 1), version=3), join("j-{v}", M), versions=range(4, 20)),
    case("a static member", Call(join("static-{v}", group_instance_id="i"), save=("member", "member_id")),
         Call(sync("static-{v}", M, 1), version=3),
         Call(join("static-{v}", group_instance_id="i"), save=("other", "member_id")),
         join("static-{v}", M, group_instance_id="i"),
         Call(kafka.HeartbeatRequest("static-{v}", 1, M, "i"), version=3),
         Call(kafka.HeartbeatRequest("static-{v}", 1, saved("other"), "i"), version=3), versions=range(5, 20)),
    case("the id of a dynamic member, static", Call(join("j3-{v}"), save=("member", "member_id")),
         join("j3-{v}", M, group_instance_id="i"), Call(kafka.DescribeGroupsRequest(["j3-{v}"]), version=5),
         versions=range(5, 20)),
    case("protocols of none", join("j4-{v}", kind=""), Call(kafka.DescribeGroupsRequest(["j4-{v}"]), version=5)),
    case("unknown members", join("none-{v}", "nobody"), member("j2-{v}"), join("j2-{v}", "nobody")),
    case("sessions", *(join("s-{v}", "nobody", session_timeout_ms=each) for each in (0, 5999, 1_800_001))),
    case("no name of a group", join("", "nobody")),
    case("protocols", member("p-{v}"), *(join("p-{v}", M, protocol=name, kind=kind) for name, kind in (
        ("range", "connect"), ("sticky", "consumer"), ("range", "")))),
]
SYNCS = [
    case("alone", member("sync-{v}"), sync("sync-{v}", M), sync("sync-{v}", M)),
    case("other generations", member("sync2-{v}"), sync("sync2-{v}", M, 0), sync("sync2-{v}", M, 2)),
    case("unknown members", sync("none-{v}", "nobody"), member("sync3-{v}"), sync("sync3-{v}", "nobody"), sync("", "nobody")),
    case("protocols", member("sync4-{v}"), *(
        sync("sync4-{v}", M, protocol_type=kind, protocol_name=name)
        for kind, name in (("connect", "range"), ("consumer", "sticky"), (None, "range"), ("consumer", "range"))),
         versions=range(5, 20)),
]
HEARTBEATS = [
    case("of a member", member("beat-{v}"), Call(sync("beat-{v}", M), version=3), kafka.HeartbeatRequest("beat-{v}", 1, M),
         kafka.HeartbeatRequest("beat-{v}", 2, M), kafka.HeartbeatRequest("beat-{v}", 1, "nobody")),
    case("before the sync", member("beat2-{v}"), kafka.HeartbeatRequest("beat2-{v}", 1, M)),
    case("of nobody", kafka.HeartbeatRequest("none-{v}", 1, "nobody"), kafka.HeartbeatRequest("", 1, "nobody")),
]


LEAVES = [
    case("a member", member("leave-{v}"), Call(sync("leave-{v}", M), version=3), leave("leave-{v}", M),
         leave("leave-{v}", M), Call(kafka.DescribeGroupsRequest(["leave-{v}"]), version=4)),
    case("nobody", leave("none-{v}", "nobody"), leave("", "nobody")),
    case("several", member("leave2-{v}"), leave("leave2-{v}", M, "nobody", ""), versions=range(3, 20)),
    case("by instance", Call(join("leave3-{v}", group_instance_id="i"), version=5, save=("member", "member_id")),
         kafka.LeaveGroupRequest("leave3-{v}", [kafka.MemberIdentity("", "nobody"), kafka.MemberIdentity("", "i")]),
         versions=range(3, 20)),
]
MEMBERS_COMMIT = [
    case("by members", member("mc-{v}"), commit("mc-{v}", ("read", 0, 5), generation_id_or_member_epoch=1, member_id=M),
         Call(sync("mc-{v}", M), version=3),
         commit("mc-{v}", ("read", 0, 6), generation_id_or_member_epoch=1, member_id=M),
         commit("mc-{v}", ("read", 0, 7), generation_id_or_member_epoch=0, member_id=M),
         commit("mc-{v}", ("read", 0, 7), generation_id_or_member_epoch=1, member_id="nobody"),
         commit("mc-{v}", ("read", 0, 7)), Call(fetch_offsets("mc-{v}", ("read", 0)), version=7)),
    case("offsets of a member", member("mc0-{v}"), Call(sync("mc0-{v}", M), version=3), delete_offsets("mc0-{v}", ("read", 0), ("idem", 0))),
]


# -- administration ------------------------------------------------------------------------------


ADMIN = [
    case("one by hand", Call(commit("by-hand-{v}", ("read", 0, 5)), version=5),
         kafka.DescribeGroupsRequest(["by-hand-{v}", "none"]), kafka.DescribeGroupsRequest(["by-hand-{v}"], True)),
    case("one member", member("one-{v}"), kafka.DescribeGroupsRequest(["one-{v}"]), Call(sync("one-{v}", M), version=3),
         kafka.DescribeGroupsRequest(["one-{v}"])),
    case("one to be joined with an id", Call(join("id-{v}"), version=4, save=("member", "member_id")),
         kafka.DescribeGroupsRequest(["id-{v}"]), Call(leave("id-{v}", M), version=3), kafka.DescribeGroupsRequest(["id-{v}"])),
    case("one twice, and none", kafka.DescribeGroupsRequest(["by-hand-{v}", "by-hand-{v}"]), kafka.DescribeGroupsRequest([])),
    case("one by hand", kafka.DeleteGroupsRequest(["by-hand-{v}", "none"]), kafka.DeleteGroupsRequest(["by-hand-{v}"])),
    case("one with a member", member("full-{v}"), kafka.DeleteGroupsRequest(["full-{v}"]),
         Call(leave("full-{v}", M), version=2), kafka.DeleteGroupsRequest(["full-{v}"])),
    case("none", kafka.DeleteGroupsRequest([])),
    case("all", kafka.ListGroupsRequest()),
    case("states", *(kafka.ListGroupsRequest([state]) for state in ("Empty", "stable", "NoSuch")), versions=range(4, 20)),
    case("types", *(kafka.ListGroupsRequest([], [kind]) for kind in ("classic", "Consumer", "NoSuch")), versions=range(5, 20)),
]

CONSUMER_GROUPS = [
    case("a member, alone, from its first to its last", beat("kip-{v}", MEMBER, 0), beat("kip-{v}", MEMBER, 0),
         Call(kafka.ConsumerGroupDescribeRequest(["kip-{v}"]), version=1), beat("kip-{v}", MEMBER, 7), beat("kip-{v}", MEMBER, -1),
         Call(kafka.ConsumerGroupDescribeRequest(["kip-{v}"]), version=1), Call(kafka.DeleteGroupsRequest(["kip-{v}"]), version=2)),
    *(case(title, request) for title, request in (
        ("of nobody", beat("none", MEMBER, 3)), ("a last one of nobody", beat("none", MEMBER, -1)),
        ("a static leave of nobody", beat("none", MEMBER, -2, instance_id="i")), ("no name of a group", beat("", MEMBER, 0)),
        ("an epoch that is none", beat("none", MEMBER, -3)), ("an empty instance", beat("none", MEMBER, 0, instance_id="")),
        ("an empty rack", beat("none", MEMBER, 0, rack_id="")), ("no time", beat("none", MEMBER, 0, rebalance_timeout_ms=-1)),
        ("no partitions said", beat("none", MEMBER, 0, topic_partitions=None)),
        ("no topics", beat("none", MEMBER, 0, subscribed_topic_names=None)),
        ("an unknown assignor", beat("none", MEMBER, 0, server_assignor="no such")))),
    case("groups that are not there", kafka.ConsumerGroupDescribeRequest(["none", ""]), kafka.ConsumerGroupDescribeRequest([])),
]

CASES: list[Case] = [*COMMITS, *FETCHES, *DELETES, *JOINS, *SYNCS, *HEARTBEATS, *LEAVES, *MEMBERS_COMMIT, *ADMIN, *CONSUMER_GROUPS]
