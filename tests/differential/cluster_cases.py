"""What administrators ask of the cluster: leaders, places, the quorum, quotas, credentials, ACLs; and SASL, where nobody asks for it."""

from __future__ import annotations

from typing import Any

from tests.differential.cases import Call, Case, case, metadata
from zafka.transport.kafka import messages as kafka
from zafka.transport.kafka.messages import (
    alter_client_quotas,
    alter_user_scram_credentials,
    describe_client_quotas,
    describe_quorum,
    describe_user_scram_credentials,
    elect_leaders,
)

ACLS = [
    case("all", kafka.DescribeAclsRequest(1, None, 1, None, None, 1, 1)),
    case("one", kafka.CreateAclsRequest([kafka.AclCreation(2, "read", 3, "User:a", "*", 3, 3)] * 2), kafka.CreateAclsRequest([])),
    case("one to delete", kafka.DeleteAclsRequest([kafka.DeleteAclsFilter(2, "read", 3, None, None, 1, 1)]), kafka.DeleteAclsRequest([])),
]


SASL = [
    case("a handshake", *(kafka.SaslHandshakeRequest(mechanism) for mechanism in ("PLAIN", "GSSAPI", "SCRAM-SHA-512", ""))),
    case("a proof", *(kafka.SaslAuthenticateRequest(proof) for proof in (b"\0alice\0secret", b"")), Call(metadata("read"), version=12)),
]


def elect(*partitions: tuple[str, list[int]], kind: int = 0) -> Any:
    return kafka.ElectLeadersRequest(kind, [elect_leaders.TopicPartitions(*each) for each in partitions], 30_000)


ELECTIONS = [
    case("all", kafka.ElectLeadersRequest(0, None, 30_000)),
    case("not needed", elect(("read", [0, 1]), ("idem", [0]))),
    case("unknown", elect(("unknown", [0]), ("read", [7]))),
    case("unclean", elect(("read", [0]), kind=1), kafka.ElectLeadersRequest(1, None, 30_000), versions=range(1, 9)),
    case("nothing", elect()),
]


def _reassign(*topics: tuple[str, int, list[int] | None]) -> Any:
    return kafka.AlterPartitionReassignmentsRequest(30_000, True, [
        kafka.ReassignableTopic(name, [kafka.ReassignablePartition(index, replicas)]) for name, index, replicas in topics])


REASSIGNMENTS = [
    case("to where it is", _reassign(("read", 0, [1]))),
    case("to be cancelled", _reassign(("read", 0, None))),
    case("to an unknown broker", _reassign(("read", 0, [9]))),
    case("to nobody", _reassign(("read", 0, []))),
    case("twice to one", _reassign(("read", 0, [1, 1]))),
    case("unknown", _reassign(("unknown", 0, [1]), ("read", 7, [1]), ("", 0, [1]))),
    case("nothing", _reassign()),
    case("ongoing ones", kafka.ListPartitionReassignmentsRequest(30_000, None)),
    case("ongoing ones of topics", kafka.ListPartitionReassignmentsRequest(30_000, [
        kafka.ListPartitionReassignmentsTopics("read", [0, 7]), kafka.ListPartitionReassignmentsTopics("unknown", [0])])),
]


def _quorum(name: str, *partitions: int) -> Any:
    return kafka.DescribeQuorumRequest([
        describe_quorum.TopicData(name, [describe_quorum.PartitionData(index) for index in partitions])])


QUORUM = [
    case("the cluster's log", _quorum("__cluster_metadata", 0)),
    case("others", _quorum("read", 0), _quorum("__cluster_metadata", 1), _quorum("__cluster_metadata", 0, 1)),
    case("nothing", kafka.DescribeQuorumRequest([])),
]


def _set_quotas(entity: list[tuple[str, str | None]], *operations: tuple[str, float, bool], validate_only: bool = False) -> Any:
    return kafka.AlterClientQuotasRequest([alter_client_quotas.EntryData(
        [alter_client_quotas.EntityData(*each) for each in entity],
        [alter_client_quotas.OpData(*each) for each in operations])], validate_only)


def _quotas(*components: tuple[str, int, str | None], strict: bool = False) -> Any:
    return kafka.DescribeClientQuotasRequest([describe_client_quotas.ComponentData(*each) for each in components], strict)


RATE = "producer_byte_rate"
ALICE = [("user", "alice")]
QUOTAS = [
    case("set, seen, taken away",
         _set_quotas(ALICE, (RATE, 1000.0, False)), _set_quotas([("user", "alice"), ("client-id", None)], (RATE, 2000.0, False)),
         *(Call(_quotas(*filters, strict=strict), version=1) for strict in (False, True) for filters in (
             [("user", 0, "alice")], [("user", 0, "alice"), ("client-id", 1, None)], [("user", 2, None), ("client-id", 2, None)],
             [("client-id", 1, None)], [("user", 1, None)], [("ip", 2, None)])),
         _set_quotas(ALICE, (RATE, 1.5, False)), _set_quotas(ALICE, (RATE, 3000.0, False), validate_only=True),
         Call(_quotas(("user", 0, "alice"), strict=True), version=1),
         _set_quotas(ALICE, (RATE, 0.0, True)), _set_quotas([("client-id", None), ("user", "alice")], (RATE, 0.0, True)),
         Call(_quotas(), version=1)),
    *(case(title, *requests) for title, requests in (
        ("keys that do not exist", [_set_quotas(ALICE, ("no.such", 1.0, False)), _set_quotas(ALICE, ("no.such", 1.0, True))]),
        ("a key twice", [_set_quotas(ALICE, (RATE, 1.0, False), (RATE, 2.0, False))]),
        ("nobody", [_set_quotas([], (RATE, 1.0, False)), _set_quotas([("user", "")], (RATE, 1.0, False))]),
        ("kinds that do not exist", [_set_quotas([("role", "x")], (RATE, 1.0, False))]),
        ("an address and a user", [_set_quotas([("ip", "127.0.0.1"), ("user", "x")], (RATE, 1.0, False))]),
        ("an address", [_set_quotas([("ip", "127.0.0.1")], (RATE, 1.0, False)),
                        _set_quotas([("ip", "127.0.0.1")], ("connection_creation_rate", 1.0, True))]),
        ("nothing", [kafka.AlterClientQuotasRequest([])]),
        ("odd filters", [_quotas(each) for each in (
            ("", 0, "x"), ("role", 0, "x"), ("user", 0, None), ("user", 1, "x"), ("user", 2, "x"), ("user", 3, None))]),
        ("filters twice", [_quotas(("user", 0, "a"), ("user", 0, "b")), _quotas(("ip", 2, None), ("user", 2, None))]))),
]


def _credentials(*, delete: Any = (), upsert: Any = ()) -> Any:
    return kafka.AlterUserScramCredentialsRequest(
        [alter_user_scram_credentials.ScramCredentialDeletion(*each) for each in delete],
        [alter_user_scram_credentials.ScramCredentialUpsertion(*each, b"salt", bytes(32)) for each in upsert])


def _users(*names: str) -> Any:
    return kafka.DescribeUserScramCredentialsRequest([describe_user_scram_credentials.UserName(name) for name in names])


CREDENTIALS = [
    case("made, seen, deleted", _credentials(upsert=[("alice", 1, 4096)]), _credentials(upsert=[("alice", 2, 8192)]),
         Call(_users("alice"), version=0), Call(kafka.DescribeUserScramCredentialsRequest(None), version=0),
         _credentials(delete=[("alice", 1)]), Call(_users("alice"), version=0), _credentials(delete=[("alice", 2)]),
         Call(_users("alice"), version=0), Call(_users(), version=0)),
    *(case(title, request) for title, request in (
        ("of nobody", _credentials(delete=[("bob", 1)])), ("without a name", _credentials(upsert=[("", 1, 4096)])),
        ("unknown mechanisms", _credentials(upsert=[("bob", 9, 4096)])), ("few iterations", _credentials(upsert=[("bob", 1, 4095)])),
        ("many iterations", _credentials(upsert=[("bob", 1, 16385)])),
        ("twice", _credentials(upsert=[("bob", 1, 4096), ("bob", 2, 4096)])), ("nothing", _credentials()),
        ("one twice", _users("bob", "bob")), ("unknown ones", _users("bob", "")))),
]

def _update(*updates: tuple[str, int, int], validate_only: bool = False) -> Any:
    return kafka.UpdateFeaturesRequest(60_000, [kafka.FeatureUpdateKey(*each) for each in updates], validate_only)


FEATURES = [case(title, *requests) for title, requests in (
    ("what it is", [_update(("group.version", 1, 1)), _update(("group.version", 1, 2)), _update(("group.version", 1, 3))]),
    ("one twice", [_update(*[("group.version", 1, 1)] * 2)]), ("nothing", [_update()]),
    ("levels that do not exist", [_update(("group.version", level, 1)) for level in (-1, 2)]),
    ("turned off", [_update(("group.version", 0, kind), validate_only=True) for kind in (1, 2, 3)]),
    ("unknown ones", [_update(("no.such", level, 1)) for level in (0, 1, -1)]), ("without a name", [_update(("", 1, 1))]),
    ("one of two", [_update(("group.version", 1, 1), ("no.such", 1, 1))]),
    ("unknown kinds", [_update(("group.version", 1, kind)) for kind in (0, 9)]))]

CASES: list[Case] = [*ACLS, *ELECTIONS, *REASSIGNMENTS, *QUORUM, *QUOTAS, *CREDENTIALS, *FEATURES, *SASL]
