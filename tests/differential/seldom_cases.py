"""What clients may send and seldom do: fields left out, filters, names that are odd, sessions that change their mind."""

from __future__ import annotations

from tests.differential.cases import Call, Case, case, create, fetch, fetch_all, metadata, part, saved, topic, topic_id
from tests.differential.data_cases import UNKNOWN_ID
from tests.differential.group_requests import M, commit, delete_offsets, fetch_offsets, join, leave, member, sync
from zafka.transport.kafka import messages as kafka

ODD_NAMES = ("", " ", "a/b c", "grüße-日本-🎉", "x" * 500, "\n", ".")

GROUP_NAMES = [
    case("odd names of groups commit", *(request for name in ODD_NAMES for request in (
        commit(name, ("read", 0, 5)), Call(fetch_offsets(name, ("read", 0)), version=7)))),
    case("a retention of its own", *(commit("kept-{v}", ("read", 0, 5), retention_time_ms=each) for each in (-1, 0, 1, 10**12)),
         Call(fetch_offsets("kept-{v}", ("read", 0)), version=7), versions=range(2, 5)),
    case("metadata of many letters", *(commit("hand-{v}", ("read", 0, 5), metadata=text) for text in (
        "ü" * 4096, "ü" * 4097, "🎉" * 2048, "🎉" * 2049)), Call(fetch_offsets("hand-{v}", ("read", 0)), version=7)),
    case("a partition and a topic twice", commit("twice-{v}", ("read", 0, 5), ("read", 0, 6), ("read", 1, 7)),
         Call(fetch_offsets("twice-{v}", everything=True), version=7)),
    case("an instance by hand", commit("inst-{v}", ("read", 0, 5), group_instance_id="i"), versions=range(7, 20)),
]
FETCHES = [
    case("odd names of groups are asked for", *(fetch_offsets(name, ("read", 0)) for name in ODD_NAMES)),
    case("many groups, one twice, with all topics, none and some", Call(commit("f1", ("read", 0, 5)), version=5), kafka.OffsetFetchRequest([
        kafka.OffsetFetchRequestGroup("f1", None, -1, None), kafka.OffsetFetchRequestGroup("f1", None, -1, []),
        kafka.OffsetFetchRequestGroup("f1", None, -1, [kafka.OffsetFetchRequestTopics(topic_id("read"), "read", [0, 0, 1])]),
        kafka.OffsetFetchRequestGroup("none", None, -1, [kafka.OffsetFetchRequestTopics(topic_id("read"), "read", [])]),
        kafka.OffsetFetchRequestGroup("", None, -1, None)]), kafka.OffsetFetchRequest([]), versions=range(8, 20)),
    case("stable ones only", kafka.OffsetFetchRequest([kafka.OffsetFetchRequestGroup("f1", None, -1, None)], "f1", None, True),
         versions=range(7, 20)),
    case("ids that nobody has", kafka.OffsetFetchRequest([kafka.OffsetFetchRequestGroup("f1", None, -1, [
        kafka.OffsetFetchRequestTopics(UNKNOWN_ID, "", [0]), kafka.OffsetFetchRequestTopics(bytes(16), "", [0])])]), versions=range(10, 20)),
]
NO_NAMES = [
    case("of a group without a name", delete_offsets("", ("read", 0)), delete_offsets("")),
    case("of groups without names", kafka.DeleteGroupsRequest(["", "none", "none"])),
    case("groups without names", kafka.DescribeGroupsRequest(["", *ODD_NAMES[1:]])),
    case("odd filters", *(kafka.ListGroupsRequest(each) for each in (["PREPARINGREBALANCE"], [""], ["dead"], ["Assigning", "Reconciling"])),
         versions=range(4, 20)),
    case("odd types", *(kafka.ListGroupsRequest([], each) for each in ([""], ["share"], ["streams"], ["CLASSIC", "x"])), versions=range(5, 20)),
    case("many keys, and odd ones", kafka.FindCoordinatorRequest("", 0, [*ODD_NAMES, "a", "a"]), versions=range(4, 20)),
    case("odd keys", *(kafka.FindCoordinatorRequest(name, 0, [name]) for name in ODD_NAMES)),
    case("kinds that do not exist", *(kafka.FindCoordinatorRequest("g", kind, ["g"]) for kind in (-1, 3, 127)), versions=range(1, 20)),
    case("share groups before their time", kafka.FindCoordinatorRequest("g:x:0", 2, ["g:x:0"]), versions=range(1, 6)),
    case("reasons", Call(join("why-{v}", reason="x" * 300), version=9, save=("member", "member_id")), join("why-{v}", M, reason=""),
         versions=range(8, 20)),
    case("instances with odd names", *(join("odd-i-{v}", "nobody", group_instance_id=each) for each in ("", ".", "ü", "x" * 300)),
         versions=range(5, 20)),
    case("nobody leaves", leave("nobody-{v}", ""), member("nobody-{v}"), kafka.LeaveGroupRequest("nobody-{v}", []), versions=range(3, 20)),
    case("no rebalance timeout", Call(join("no-time-{v}", rebalance_timeout_ms=-1), save=("member", "member_id")), versions=range(1, 4)),
    case("nothing to share out", member("empty-{v}"), kafka.SyncGroupRequest("empty-{v}", 1, M, None, "consumer", "range", []),
         Call(kafka.DescribeGroupsRequest(["empty-{v}"]), version=5)),
    case("no protocol said", member("null-{v}"), sync("null-{v}", M, protocol_type=None, protocol_name=None), versions=range(5, 20)),
]
SESSIONS = [
    case("a partition forgotten and added at once", Call(fetch("read", part(0), part(1), session_epoch=0), save=("session", "session_id")),
         fetch("read", part(0, 3), session_id=saved("session"), session_epoch=1, forgotten_topics_data=[
             kafka.ForgottenTopic(topic_id("read"), "read", [0, 1, 9]), kafka.ForgottenTopic(topic_id("unknown"), "unknown", [0])]),
         fetch_all(session_id=saved("session"), session_epoch=2), fetch_all(session_id=saved("session"), session_epoch=-1), versions=range(7, 20)),
    case("a session that is given up for another", Call(fetch("read", part(0), session_epoch=0), save=("session", "session_id")),
         fetch("cut", part(0, 3), session_id=saved("session"), session_epoch=0), fetch_all(session_id=saved("session"), session_epoch=1),
         versions=range(7, 20)),
    case("a session across names and ids", Call(fetch("read", part(0), session_epoch=0), version=12, save=("session", "session_id")),
         fetch_all(session_id=saved("session"), session_epoch=1), Call(fetch_all(session_id=saved("session"), session_epoch=2), version=12),
         versions=range(13, 20)),
    case("forgotten without a session", fetch("read", part(0), forgotten_topics_data=[kafka.ForgottenTopic(topic_id("read"), "read", [0])]),
         versions=range(7, 20)),
]
TOPICS = [
    case("counts that are left open", create(kafka.CreatableTopic("open", -1, -1, [], [kafka.CreatableTopicConfig("cleanup.policy", "compact,delete")]),
                                             validate_only=True), versions=range(4, 20)),
    case("a list with spaces, an empty value", *(create(topic("valid", cleanup_policy=each), validate_only=True) for each in (
        "compact, delete", " compact", "", "delete,delete", "COMPACT")), versions=range(2, 20)),
    case("a key twice", create(kafka.CreatableTopic("valid", 1, 1, [], [kafka.CreatableTopicConfig("retention.ms", "1")] * 2), validate_only=True)),
]
NAMES = [
    case("null and empty", kafka.MetadataRequest([kafka.MetadataRequestTopic(bytes(16), "")], False),
         metadata("read", include_topic_authorized_operations=False), versions=range(10, 20)),
]

CASES: list[Case] = [*GROUP_NAMES, *FETCHES, *NO_NAMES, *SESSIONS, *TOPICS, *NAMES]
