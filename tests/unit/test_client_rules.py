"""Quotas and SCRAM credentials: what is stored, and what is refused in Kafka's words."""

from __future__ import annotations

import base64
import hashlib

import pytest

from zafka.actors.client_rules import decide
from zafka.actors.cluster_state import (
    AnyEvent,
    ClusterState,
    QuotaChanged,
    ScramCredentialChanged,
    decode_event,
    encode_event,
)
from zafka.actors.messages import ClientChange, QuotaChange, ScramChange
from zafka.transport.kafka.errors import ErrorCode

ALICE = (("user", "alice"),)
RATE = "producer_byte_rate"


def quota(*operations: tuple[str, float | None], entity: tuple[tuple[str, str | None], ...] = ALICE) -> QuotaChange:
    return QuotaChange(entity, list(operations))


def apply(state: ClusterState, *changes: ClientChange) -> tuple[list[AnyEvent], list[int]]:
    """Decide, and have the log carry what was decided to the state."""
    events, outcomes = decide(changes, state)
    for event in events:
        state.apply(decode_event(encode_event(event)))
    return events, [error for error, _ in outcomes]


def test_quotas_are_set_changed_and_taken_away() -> None:
    state = ClusterState()
    events, errors = apply(state, quota((RATE, 1000.0), ("request_percentage", 12.5)))
    assert errors == [0] and events == [QuotaChanged(ALICE, {RATE: 1000.0, "request_percentage": 12.5})]
    assert apply(state, quota((RATE, 1000.0))) == ([], [0])  # nothing new
    both = (("client-id", None), ("user", "alice"))
    apply(state, quota((RATE, None)), quota((RATE, 5.0), entity=both))
    assert state.quotas == {ALICE: {"request_percentage": 12.5}, both: {RATE: 5.0}}
    apply(state, quota(("request_percentage", None), ("no.such", None)))
    assert state.quotas == {both: {RATE: 5.0}}


@pytest.mark.parametrize(("change", "told"), [
    (quota(("no.such", 1.0)), "Invalid configuration key no.such"),
    (quota(("connection_creation_rate", 1.0)), "Invalid configuration key"),
    (quota((RATE, 1.5)), "producer_byte_rate cannot be a fractional value"),
    (quota(("request_percentage", float("inf"))), "must be a finite number"),
    (quota((RATE, float("nan"))), "must be a finite number"),
    (quota((RATE, 1.0), (RATE, 2.0)), "Ignoring duplicate entity ClientQuotaEntity(entries={user=alice})"),
    (quota((RATE, 1.0), entity=()), "Invalid empty client quota entity"),
    (quota((RATE, 1.0), entity=(("role", "x"),)), "Unhandled client quota entity type: role"),
    (quota((RATE, 1.0), entity=(("user", ""),)), "Empty user not supported"),
    (quota((RATE, 1.0), entity=(("user", "a"), ("user", "b"))), "user is named twice"),
    (quota((RATE, 1.0), entity=(("ip", "127.0.0.1"), ("user", "a"))), "IP entity shouldnot be combined"),
    (quota((RATE, 1.0), entity=(("ip", "127.0.0.1"),)), "Invalid configuration key"),
    (quota(("connection_creation_rate", 1.5), entity=(("ip", "127.0.0.1"),)), "cannot be a fractional value"),
])
def test_quotas_that_cannot_be_are_refused_and_the_rest_is_done(change: QuotaChange, told: str) -> None:
    other = quota((RATE, 7.0), entity=(("user", "bob"),))
    events, outcomes = decide([change, other], ClusterState())
    assert outcomes[0][0] == ErrorCode.INVALID_REQUEST and told in outcomes[0][1]
    assert outcomes[1] == (0, "") and events == [QuotaChanged(other.entity, {RATE: 7.0})]


def test_a_salted_password_becomes_the_keys_of_rfc_7677() -> None:
    """Its example: user "user", password "pencil"."""
    salt = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
    salted = hashlib.pbkdf2_hmac("sha256", b"pencil", salt, 4096)
    state = ClusterState()
    assert apply(state, ScramChange("user", 1, False, salt, salted, 4096))[1] == [0]
    credential = state.credentials["user", 1]
    assert base64.b64encode(credential.stored_key) == b"WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY="
    assert base64.b64encode(credential.server_key) == b"wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
    assert (credential.salt, credential.iterations) == (salt, 4096)


def test_credentials_are_replaced_and_deleted_by_mechanism() -> None:
    state = ClusterState()
    apply(state, ScramChange("a", 1, False, b"s", b"p", 4096))
    assert apply(state, ScramChange("a", 2, False, b"s", b"p", 16384))[1] == [0]
    assert len(state.credentials["a", 2].stored_key) == 64
    apply(state, ScramChange("a", 1, False, b"s", b"p", 5000))
    assert state.credentials["a", 1].iterations == 5000
    events, errors = apply(state, ScramChange("a", 1, True))
    assert errors == [0] and events == [ScramCredentialChanged("a", 1, None)] and list(state.credentials) == [("a", 2)]


@pytest.mark.parametrize(("changes", "error"), [
    ([ScramChange("", 1, False, b"s", b"p", 4096)], ErrorCode.UNACCEPTABLE_CREDENTIAL),
    ([ScramChange("a", 3, False, b"s", b"p", 4096)], ErrorCode.UNSUPPORTED_SASL_MECHANISM),
    ([ScramChange("a", 1, False, b"s", b"p", 4095)], ErrorCode.UNACCEPTABLE_CREDENTIAL),
    ([ScramChange("a", 1, False, b"s", b"p", 16385)], ErrorCode.UNACCEPTABLE_CREDENTIAL),
    ([ScramChange("a", 1, True)], ErrorCode.RESOURCE_NOT_FOUND),
    ([ScramChange("a", 1, True), ScramChange("a", 2, False, b"s", b"p", 4096)], ErrorCode.DUPLICATE_RESOURCE),
])
def test_credentials_that_cannot_be_are_refused(changes: list[ScramChange], error: ErrorCode) -> None:
    assert apply(ClusterState(), *changes) == ([], [error] * len(changes))
