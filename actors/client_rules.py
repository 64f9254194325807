"""Quotas of clients and SCRAM credentials of users: what may be stored, in Kafka's words. Pure.

Owns: `decide`, which turns what an administrator asks into events. Nothing here is enforced yet: it is stored and described.
May fail with: `Refused`, inside.
Source: ClientQuotaControlManager, QuotaConfigs (KIP-546, KIP-612); ScramControlManager (KIP-554), RFC 5802.
"""

from __future__ import annotations

import hashlib
import hmac
import math
from collections import Counter
from collections.abc import Sequence

from zafka.actors.cluster_state import (
    AnyEvent,
    ClusterState,
    Entity,
    QuotaChanged,
    ScramCredential,
    ScramCredentialChanged,
)
from zafka.actors.messages import ClientChange, QuotaChange, ScramChange
from zafka.actors.refused import Refused
from zafka.transport.kafka.errors import ErrorCode

USER, CLIENT_ID, IP = "user", "client-id", "ip"
RATES = frozenset(("producer_byte_rate", "consumer_byte_rate"))  # whole numbers
CLIENT_KEYS = RATES | {"request_percentage", "controller_mutation_rate"}
IP_KEYS = frozenset(("connection_creation_rate",))
WHOLE_KEYS = RATES | IP_KEYS
EPSILON = 1e-6

MECHANISMS = {1: "sha256", 2: "sha512"}  # Kafka's ScramMechanism: SCRAM-SHA-256, SCRAM-SHA-512
ITERATIONS_MIN, ITERATIONS_MAX = 4096, 16384
TWICE = "A user credential cannot be altered twice in the same request"

Outcome = tuple[int, str]
"""Error code and message."""


def decide(changes: Sequence[ClientChange], state: ClusterState) -> tuple[list[AnyEvent], list[Outcome]]:
    """The events of what can be done, and the outcome of each change in order."""
    events: list[AnyEvent] = []
    outcomes: list[Outcome] = []
    entities = Counter(change.entity for change in changes if isinstance(change, QuotaChange))
    users = Counter(change.user for change in changes if isinstance(change, ScramChange))
    for change in changes:
        try:
            if isinstance(change, QuotaChange):
                event = _decide_quota(change, state, twice=entities[change.entity] > 1)
            else:
                event = _decide_credential(change, state, twice=users[change.user] > 1)
        except Refused as refused:
            outcomes.append((refused.error, refused.message))
        else:
            events += event
            outcomes.append((ErrorCode.NONE, ""))
    return events, outcomes


def _decide_quota(change: QuotaChange, state: ClusterState, *, twice: bool) -> list[AnyEvent]:
    """One event with all quotas that the entity has afterwards."""
    if twice or any(count > 1 for count in Counter(key for key, _ in change.operations).values()):
        raise Refused(ErrorCode.INVALID_REQUEST, f"Ignoring duplicate entity {entity_text(change.entity)}")
    known = _keys_of(change.entity)
    current = state.quotas.get(change.entity, {})
    quotas = dict(current)
    for key, value in change.operations:
        if value is None:
            quotas.pop(key, None)
        else:
            _check_quota(key, value, known)
            quotas[key] = value
    return [] if quotas == current else [QuotaChanged(change.entity, quotas)]


def entity_text(entity: Entity) -> str:
    """As Kafka writes an entity in its messages."""
    return "ClientQuotaEntity(entries={" + ", ".join(f"{kind}={name}" for kind, name in entity) + "})"


def _keys_of(entity: Entity) -> frozenset[str]:
    """The quotas that an entity can have. Raises Refused for what is none."""
    if not entity:
        raise Refused(ErrorCode.INVALID_REQUEST, "Invalid empty client quota entity")
    for kind, name in entity:
        if kind not in (USER, CLIENT_ID, IP):
            raise Refused(ErrorCode.INVALID_REQUEST, f"Unhandled client quota entity type: {kind}")
        if name == "":
            raise Refused(ErrorCode.INVALID_REQUEST, f"Empty {kind} not supported")
    kinds = [kind for kind, _ in entity]
    if kinds == [IP]:
        return IP_KEYS
    if IP in kinds:
        raise Refused(
            ErrorCode.INVALID_REQUEST,
            # Kafka's own words, the missing blank included: clients may match on them.
            "Invalid quota entity combination, IP entity shouldnot be combined with User or ClientId")
    if len(set(kinds)) < len(kinds):
        raise Refused(ErrorCode.INVALID_REQUEST, f"Invalid client quota entity, {kinds[0]} is named twice")
    return CLIENT_KEYS


def _check_quota(key: str, value: float, known: frozenset[str]) -> None:
    if key not in known:
        raise Refused(ErrorCode.INVALID_REQUEST, f"Invalid configuration key {key}")
    if not math.isfinite(value):
        raise Refused(ErrorCode.INVALID_REQUEST, f"Configuration {key} must be a finite number")
    if key in WHOLE_KEYS and abs(math.floor(value + EPSILON) - value) > EPSILON:
        raise Refused(ErrorCode.INVALID_REQUEST, f"{key} cannot be a fractional value.")


def _decide_credential(change: ScramChange, state: ClusterState, *, twice: bool) -> list[AnyEvent]:
    if twice:
        raise Refused(ErrorCode.DUPLICATE_RESOURCE, TWICE)
    if not change.user:
        raise Refused(ErrorCode.UNACCEPTABLE_CREDENTIAL, "Username must not be empty")
    digest = MECHANISMS.get(change.mechanism)
    if digest is None:
        raise Refused(ErrorCode.UNSUPPORTED_SASL_MECHANISM, "Unknown SCRAM mechanism")
    if change.deleted:
        if (change.user, change.mechanism) not in state.credentials:
            raise Refused(ErrorCode.RESOURCE_NOT_FOUND, "Attempt to delete a user credential that does not exist")
        return [ScramCredentialChanged(change.user, change.mechanism, None)]
    if change.iterations < ITERATIONS_MIN:
        raise Refused(ErrorCode.UNACCEPTABLE_CREDENTIAL, "Too few iterations")
    if change.iterations > ITERATIONS_MAX:
        raise Refused(ErrorCode.UNACCEPTABLE_CREDENTIAL, "Too many iterations")
    client_key = hmac.digest(change.salted_password, b"Client Key", digest)
    credential = ScramCredential(
        change.salt, hashlib.new(digest, client_key).digest(), hmac.digest(change.salted_password, b"Server Key", digest), change.iterations)
    return [ScramCredentialChanged(change.user, change.mechanism, credential)]
