"""What the machines of a group coordinator take and give: requests of clients in; records, answers and timers out.

Owns: `Call`, one request of a client; `Outbox`, what one turn of a coordinator wants done; `Groups`, what a machine of
one kind of groups offers to the coordinator and to the committed offsets; `Topics`, what it may know of the cluster.
The machines (`offsets.py`, `classic.py`, `consumer.py`) decide and touch nothing else, so the simulator runs them as
they are.
Invariant: the machines' state runs ahead of the log; an answer leaves once every record that was appended before the
end of its turn is committed, so nobody is told what a crash could take back.
Source: Kafka CoordinatorRuntime, CoordinatorResult, Group.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, NamedTuple, Protocol

from zafka.actors.actor import Now, Peer


class Call(NamedTuple):
    """One request, as the broker passed it on. Answered exactly once, at any later time.

    peer, request_id: which question of which broker this is. client_host: as Kafka shows it, "/127.0.0.1".
    """

    peer: Peer
    request_id: int
    api_key: int
    version: int
    client_id: str
    client_host: str


class Outbox:
    """What a turn wants done, in order.

    records: key and value, None for a tombstone, as `records.py` encodes them.
    answers: a call and the struct of its answer. timers: by name, the monotonic time; None cancels.
    """

    __slots__ = ("answers", "records", "timers")

    def __init__(self) -> None:
        self.records: list[tuple[bytes, bytes | None]] = []
        self.answers: list[tuple[Call, Any]] = []
        self.timers: dict[str, float | None] = {}

    def append(self, key: bytes, value: bytes | None) -> None:
        self.records.append((key, value))

    def answer(self, call: Call, response: Any) -> None:
        self.answers.append((call, response))

    def set_timer(self, name: str, at_s: float) -> None:
        self.timers[name] = at_s

    def cancel_timer(self, name: str) -> None:
        self.timers[name] = None


class Topic(NamedTuple):
    topic_id: bytes
    partitions: int


class Topics:
    """The cluster's topics as a coordinator knows them: by name. Changed in place by the coordinator only.

    configs: what was altered of groups; of "": of all."""

    __slots__ = ("by_name", "configs")

    def __init__(self) -> None:
        self.by_name: dict[str, Topic] = {}
        self.configs: Mapping[str, Mapping[str, str]] = {}

    def altered(self, group_id: str, key: str, otherwise: int) -> int:
        """What was altered of this group, or of all."""
        value = self.configs.get(group_id, {}).get(key) or self.configs.get("", {}).get(key)
        return otherwise if value is None else int(value)


class Listed(NamedTuple):
    """A group for ListGroups. state: Kafka's word, "Stable". kind: "classic" or "consumer"."""

    group_id: str
    protocol_type: str
    state: str
    kind: str


class Commit(NamedTuple):
    """What a commit of offsets says of who commits. generation: or member epoch; -1 with member_id "": nobody's member.

    version: of the request, by which some are told that they are too old."""

    group_id: str
    member_id: str
    instance_id: str | None
    generation: int
    version: int


class Groups(Protocol):
    """All groups of one kind whose coordinator this is. Every method returns at once; none raises for what clients say.

    A group that has committed offsets and never had members is no group here: `offsets.py` alone knows it.
    What changes the state appends the record of it to the outbox in the same call; `replay` of these records, in order,
    leads to the same state, without what Kafka does not keep either (sessions, members that have only just asked to join).
    """

    kind: ClassVar[str]
    """"classic" or "consumer"; the first word of the names of its timers, "classic session GROUP MEMBER"."""
    apis: ClassVar[frozenset[int]]
    """The API keys that `handle` takes: those in which members speak."""

    def handle(self, call: Call, request: Any, now: Now, outbox: Outbox) -> None:
        """Answer a request of a member (JoinGroup, ...), now or later."""
        ...

    def on_timer(self, name: str, now: Now, outbox: Outbox) -> None: ...

    def on_topics(self, changed: Iterable[str], now: Now, outbox: Outbox) -> None:
        """Topics with these names came, went, or have more partitions; `Topics` says which."""
        ...

    def replay(self, key: Any, value: Any) -> None:
        """Take in a record from the log: structs of `records.py`; value None is a tombstone."""
        ...

    def on_loaded(self, now: Now, outbox: Outbox) -> None:
        """All of the log is replayed: the sessions of the members begin now."""
        ...

    def renew_sessions(self, now: Now, outbox: Outbox) -> None:
        """Nobody could be heard for a while: the sessions of all members begin anew."""
        ...

    def __contains__(self, group_id: object) -> bool: ...

    # -- for the offsets of a group that is here -------------------------------------------------

    def check_commit(self, commit: Commit, now: Now, outbox: Outbox) -> int:
        """Kafka's error for a commit by this member (ILLEGAL_GENERATION, ...), or 0. Prolongs its session as Kafka does."""
        ...

    def check_stale_commit(self, commit: Commit, topic_id: bytes, partition: int) -> int:
        """Of a commit with another epoch than the member's: 0 if it has had this partition since that epoch (KIP-1251)."""
        ...

    def check_fetch(self, group_id: str, member_id: str | None, member_epoch: int) -> int:
        """Kafka's error for a member that asks for offsets (KIP-848; member_id None or epoch < 0: anybody), or 0."""
        ...

    def check_offset_delete(self, group_id: str) -> int:
        """Kafka's error for a group whose offsets cannot be deleted as it is (NON_EMPTY_GROUP, ...), or 0."""
        ...

    def is_subscribed(self, group_id: str, topic: str) -> bool:
        """Whether a member reads this topic, as far as is known: then its offsets are neither deleted nor expired."""
        ...

    def expiry_base_ms(self, group_id: str, committed_ms: int) -> int | None:
        """From when on the retention of an offset counts that was committed at this time; None while it does not."""
        ...

    # -- administration --------------------------------------------------------------------------

    def list(self) -> Iterable[Listed]: ...

    def describe(self, group_id: str, version: int) -> Any:
        """`DescribedGroup` of a group that is here (classic); the struct of ConsumerGroupDescribe (consumer)."""
        ...

    def delete(self, group_id: str, outbox: Outbox) -> int:
        """Kafka's error for a group that cannot be deleted as it is (NON_EMPTY_GROUP), or 0 and its tombstones."""
        ...


Settings = Mapping[str, str]
"""The broker's settings by Kafka's names, as the topology has them; a machine reads its own, with Kafka's defaults."""
