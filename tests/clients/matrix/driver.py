"""What a case may ask of any client: write, read, look up, administer; in the same words for all of them.

Owns: the words. A driver turns them into calls of one client, and its errors into `Refused`.
What a client cannot do at all stands in its driver's `cannot`, ability by ability, with the reason; a case names the
abilities that it needs, and is not run, but listed with that reason, for a client that lacks one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, Literal, NamedTuple

from tests.clients.samples import Sample

TIMEOUT_S = 60.0
HEARTBEAT_MS = 300  # of members, so that a rebalance is not waited for for seconds
REFRESH_MS = 200  # of members that follow topics
Protocol = Literal["classic", "consumer"]
CREATE_TIME, LOG_APPEND_TIME = 0, 1


class Ability(StrEnum):
    """What a case may need. The words stand in docs/clients.md."""

    WRITE = "writing"
    READ = "reading"
    LOOK_UP = "offsets, times and metadata"
    ADMIN = "creating and deleting topics"
    ADD_PARTITIONS = "adding partitions"
    DELETE_RECORDS = "deleting records"
    CLUSTER = "describing the cluster"
    CONFIG = "configuration of topics and brokers"
    GROUPS = "listing and describing groups"
    GROUP_OFFSETS = "listing a group's offsets"
    SET_OFFSETS = "altering a group's offsets"
    DELETE_OFFSETS = "deleting a group's offsets"
    DELETE_GROUPS = "deleting groups"
    IDEMPOTENT = "idempotent writing"
    ACKS = "choice of acknowledgements"
    PARTITIONS = "one reader of many partitions"
    KEYED = "its own partitioner"
    TIMESTAMPS = "timestamps of the writer's own"
    TIME_TYPE = "telling whose clock a timestamp is"
    LIMITS = "raised limits"
    ERRORS = "errors told by name"
    BYTES = "records that are no lines of text"
    HEADERS = "headers"
    NULLS = "null and empty keys and values"
    SEEK_END = "starting at the end"
    SEEK_TIME = "starting at a time"
    RESET = "a start that is out of range"
    COMMITTED = "read_committed"
    GROUP = "reading in groups"
    STATIC = "static members of groups"
    COMMIT = "committing by hand"
    COMMIT_LESS = "committing less than what is committed"
    COOPERATIVE = "a cooperative assignor"
    NO_RESET = "doing without auto.offset.reset"
    FOLLOW = "members whose topic grows"
    DELETED = "members whose topic is deleted"
    LATER = "members for a topic that is not there yet"
    PATTERN = "members by a pattern"
    KIP_848_PATTERN = "members of KIP-848 groups by a pattern"
    KIP_848 = "KIP-848 groups"
    CREATE_ON_WRITE = "creating a topic by writing to it"
    UNKNOWN_PARTITION = "telling that a partition is not there"
    CREATE_ON_READ = "creating a topic by reading it"
    ABANDON = "a writer that is gone in the middle"
    STREAM = "a writer and a reader that stay open while the broker dies"
    PATIENCE = "trying for long enough by default"
    GZIP = "gzip"
    SNAPPY = "snappy"
    LZ4 = "lz4"
    ZSTD = "zstd"


@dataclass(frozen=True, slots=True)
class Settings:
    """None: the client's default.

    record_bytes_max: limits of the client raised to records of this size.
    wait_ms: how long a fetch waits at the end of the log.
    give_up_ms: how long a writer looks for a topic or partition that may not be there.
    """

    codec: str | None = None
    idempotent: bool | None = None
    acks: Literal["0", "1", "all"] | None = None
    linger_ms: int | None = None
    record_bytes_max: int | None = None
    wait_ms: int | None = None
    give_up_ms: int | None = None
    committed: bool = False
    create_on_read: bool = False
    reset: Literal["earliest", "latest"] = "earliest"


DEFAULTS = Settings()


@dataclass(frozen=True, slots=True)
class Joining:
    """How a member joins its group.

    instance: the name of a static member.
    session_ms: the silence after which a classic member is out; None: the client's default.
    cooperative: with an assignor that takes from a member only what another one is to have.
    by_hand: it commits when it is told to, and only then.
    reset: where it begins without an offset that can be read; "none": it says so instead.
    follows: it looks for what became of topics every REFRESH_MS, not every few minutes, and creates none by asking for it.
    is_pattern: what it is given as its topic is a regular expression, which begins with ^.
    """

    protocol: Protocol = "classic"
    instance: str | None = None
    session_ms: int | None = None
    cooperative: bool = False
    by_hand: bool = False
    reset: Literal["earliest", "none"] = "earliest"
    follows: bool = False
    is_pattern: bool = False


AS_USUAL = Joining()


class Start(NamedTuple):
    """Where a reader begins: "beginning", "end", ("offset", n), ("time", milliseconds)."""

    kind: Literal["beginning", "end", "offset", "time"]
    at: int = 0


BEGINNING, END = Start("beginning"), Start("end")


class Received(NamedTuple):
    """timestamp_type: None if the client does not tell."""

    partition: int
    offset: int
    sample: Sample
    timestamp_type: int | None


class Cluster(NamedTuple):
    """brokers: their ids. controller: the id of the one that is told to be it; None if the client does not tell."""

    cluster_id: str
    brokers: set[int]
    controller: int | None


class Group(NamedTuple):
    """state: Kafka's word, in lower case and without spaces."""

    state: str
    members: int


ConfigKind = Literal["topic", "broker", "group"]


class Refused(Exception):
    """The client was refused, by the broker or by itself.

    code: Kafka's number of the error; None where the client has its own.
    """

    def __init__(self, code: int | None, text: str) -> None:
        self.code = code
        super().__init__(f"{text} (code {code})")


class Writer(ABC):
    """An open producer for one topic. It fails with Refused; an idempotent one neither loses nor doubles what it sends."""

    @abstractmethod
    def send(self, records: Sequence[Sample]) -> None:
        """Hand records over, in this order, without waiting for what becomes of them."""

    @abstractmethod
    def flush(self) -> list[int] | None:
        """Wait until all is acknowledged; offsets of what was sent since the last flush, None if the client tells none."""

    @abstractmethod
    def close(self) -> None:
        """Close it as its users would. Safe to call twice."""

    def abandon(self) -> None:
        """Be gone, with records in flight."""
        raise NotImplementedError


class Reader(ABC):
    """An open consumer of partitions that are assigned to it, or a member of a group."""

    @abstractmethod
    def read(self, count: int) -> list[Received]:
        """The next records; fewer only if nothing more came for TIMEOUT_S."""

    @abstractmethod
    def close(self) -> None:
        """Close it as its users would. Safe to call twice."""

    def seek(self, topic: str, partition: int, offset: int) -> None:
        """Have a member that has this partition go on there."""
        raise NotImplementedError

    def commit(self) -> None:
        """Have a member commit what it has read, and wait until that is done."""
        raise NotImplementedError

    def crash(self) -> None:
        """SIGKILL for a member that has a process of its own: its group is told nothing."""
        raise NotImplementedError


class Driver(ABC):
    """One client.

    name: its column in docs/clients.md.
    toolchain: a program of its language. A client that has one is skipped where it cannot be had, in CI too; None if
        it has to be there.
    """

    name: str
    toolchain: ClassVar[str | None] = None
    cannot: ClassVar[Mapping[Ability, str]] = {}
    shares_with_itself_only: ClassVar[bool] = False  # it has no assignor that others know

    def __init__(self, kafka: str, zmq: str) -> None:
        """kafka, zmq: addresses of the broker's two doors."""
        self.bootstrap = kafka
        self.client_id = client_id_of(type(self))

    @classmethod
    def missing(cls) -> str | None:
        """Why it cannot be run here; None if it can."""
        return None

    @abstractmethod
    def version(self) -> str:
        """Version of the client."""

    def expresses(self, sample: Sample) -> bool:
        """True if the client can write and read this record as it is; only clients made for lines of text cannot."""
        return True

    @abstractmethod
    def writer(self, topic: str, settings: Settings = DEFAULTS, *, partition: int | None = 0) -> Writer:
        """partition: None leaves it to the client's partitioner."""

    @abstractmethod
    def reader(
        self, topic: str, start: Start = BEGINNING, settings: Settings = DEFAULTS, *, partitions: Sequence[int] = (0,)
    ) -> Reader: ...

    def member(self, topic: str, group: str, joining: Joining = AS_USUAL) -> Reader:
        """A member of a group, from the beginning where the group has committed nothing that can be read, unless it joins
        to say so. It commits by itself, all of what it has read at the latest when it is closed, unless it joins to be told to.
        """
        raise NotImplementedError

    def member_apart(self, topic: str, group: str, joining: Joining = AS_USUAL) -> Reader:
        """The same in a process of its own, so that it can crash."""
        raise NotImplementedError

    @abstractmethod
    def bounds(self, topic: str) -> tuple[int, int]:
        """First offset and end offset of partition 0."""

    @abstractmethod
    def offset_at(self, topic: str, timestamp_ms: int) -> int | None:
        """First offset of partition 0 at or after a time; None if there is none."""

    @abstractmethod
    def partitions(self, topic: str) -> int:
        """How many partitions the metadata tells of."""

    @abstractmethod
    def create_topic(self, topic: str, partitions: int) -> None: ...

    @abstractmethod
    def delete_topic(self, topic: str) -> None: ...

    @abstractmethod
    def topics(self) -> set[str]: ...

    def add_partitions(self, topic: str, total: int) -> None:
        """Until it has so many."""
        raise NotImplementedError

    def delete_records(self, topic: str, before: int) -> None:
        """Of partition 0, those below an offset."""
        raise NotImplementedError

    def cluster(self) -> Cluster:
        raise NotImplementedError

    def config(self, kind: ConfigKind, name: str) -> Mapping[str, str | None]:
        """What it is told of the configuration of a topic or a broker."""
        raise NotImplementedError

    def alter_config(self, kind: ConfigKind, name: str, values: Mapping[str, str | None]) -> None:
        """None goes back to the default."""
        raise NotImplementedError

    def groups(self) -> set[str]:
        raise NotImplementedError

    def group(self, group: str) -> Group:
        raise NotImplementedError

    def group_offsets(self, topic: str, group: str) -> dict[int, int]:
        """What the group has committed for each partition for which it has."""
        raise NotImplementedError

    def set_group_offsets(self, topic: str, group: str, offsets: Mapping[int, int]) -> None:
        raise NotImplementedError

    def delete_group_offsets(self, topic: str, group: str, partition: int) -> None:
        raise NotImplementedError

    def delete_group(self, group: str) -> None:
        raise NotImplementedError

    def close(self) -> None:  # noqa: B027  (most have nothing to close)
        """Let go of what is shared by its writers and readers."""


def client_id_of(kind: type[Driver]) -> str:
    """What a client calls itself to the broker: its name, so that it survives a command line."""
    return kind.name.replace(" ", "-").replace("'", "")
