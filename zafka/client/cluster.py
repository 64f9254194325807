"""What a client knows of the cluster: brokers, who leads what, and a channel to each.

Owns: metadata and its refreshing, channels with their backoff, single requests that are tried until a deadline.
Lives in the I/O thread. Connects for ever; how long somebody waits is the waiting one's matter.
Invariant: an `Ask` ends in exactly one call of its `on_answer`, at its deadline at the latest.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any

from zafka.client.addresses import Address
from zafka.client.channel import Channel, OnAnswer
from zafka.client.errors import (
    ConnectionLost,
    NoBroker,
    NotSupportedYet,
    RequestTimedOut,
    UnknownTopic,
    ZafkaError,
    error_name,
)
from zafka.client.io_thread import IoThread
from zafka.transport.direct import Told
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages import MetadataRequest, MetadataRequestTopic, MetadataResponse
from zafka.transport.kafka.messages.metadata import MetadataResponseTopic

logger = logging.getLogger("zafka.client")

BACKOFF_FIRST_S = 0.02
BACKOFF_MAX_S = 1.0
REFRESH_LEAST_S = 0.02  # between two refreshes that errors ask for; doubles up to BACKOFF_MAX_S
NEVER = float("inf")


class Target(Enum):
    """To whom a request goes, other than to a broker by its id."""

    ANY = "any"
    CONTROLLER = "controller"


@dataclass(slots=True)
class Settings:
    """What all clients have in common. Seconds."""

    bootstrap: tuple[Address, ...]
    client_id: str = "zafka"
    connect_timeout: float = 10.0
    bootstrap_timeout: float = 3.0
    request_timeout: float = 30.0
    metadata_max_age: float = 300.0


@dataclass(slots=True, frozen=True)
class Topic:
    """A topic that exists. leaders: broker id of each partition's leader, -1 where there is none."""

    name: str
    topic_id: bytes
    leaders: tuple[int, ...]
    leader_epochs: tuple[int, ...]
    led: tuple[int, ...]  # partitions that have a leader, or all if none has


@dataclass(slots=True)
class Ask:
    """A request that is tried until it is answered or `deadline_s` has come."""

    target: Target | int
    api_key: ApiKey
    message: Any
    on_answer: OnAnswer
    deadline_s: float
    repeat: bool  # send again if the connection ended: only for what may be carried out twice
    retry_at_s: float = 0.0
    in_flight: bool = False
    last_error: str = ""


class Cluster:
    """See the module. `turn` is called in every turn of the I/O thread."""

    def __init__(self, io: IoThread, settings: Settings, on_change: Callable[[], None]) -> None:
        self.settings = settings
        self.brokers: dict[int, Address] = {}
        self.racks: dict[int, str | None] = {}
        self.cluster_id = ""
        self.controller_id = -1
        self.topics: dict[str, Topic] = {}
        self.topic_errors: dict[str, int] = {}  # of wanted topics that are not there
        self.metadata_count = 0  # answers that came
        self.connections_lost = 0  # after they were open
        self.on_told: Callable[[Told], None] = lambda told: None  # a broker says where a partition is
        self._io = io
        self._on_change = on_change  # metadata or a channel changed
        self._wanted: set[str] = set()
        self._channels: dict[tuple[Address, str], Channel] = {}  # by address and purpose
        self._failures: dict[Address, tuple[int, float, str]] = {}  # in a row, when to try again, why
        self._asks: list[Ask] = []
        self._started_s = time.monotonic()
        self._refresh_at_s = 0.0
        self._refreshing = False
        self._refresh_backoff_s = REFRESH_LEAST_S
        self._refreshed_s = 0.0
        self._closed = False

    def begin(self, now_s: float) -> None:
        """The I/O thread starts now."""
        self._started_s = now_s

    # -- topics ----------------------------------------------------------------------------------

    def want(self, topics: Iterable[str]) -> None:
        """Keep these topics in the metadata from now on."""
        new = set(topics) - self._wanted
        if new:
            self._wanted |= new
            self._refresh_at_s = 0.0
            self._io.wake()

    def unwant(self, topics: Iterable[str]) -> None:
        """Stop asking for topics that turned out not to exist."""
        gone = {name for name in topics if name in self.topic_errors}
        self._wanted -= gone
        for name in gone:
            del self.topic_errors[name]
        self._on_change()

    def wants(self, topic: str) -> bool:
        return topic in self._wanted

    def refresh_soon(self) -> None:
        """Something does not fit what we know: ask again, more and more slowly while it does not help."""
        at_s = self._refreshed_s + self._refresh_backoff_s
        if at_s < self._refresh_at_s:
            self._refresh_at_s = at_s
            self._io.wake()  # whoever calls us may do so after our turn

    def settled(self) -> None:
        """A request to a leader went well: the next surprise is asked about at once."""
        self._refresh_backoff_s = REFRESH_LEAST_S

    def leader(self, topic: str, partition: int) -> int:
        """Broker id, or -1 if nobody is known to lead."""
        known = self.topics.get(topic)
        return -1 if known is None or partition >= len(known.leaders) else known.leaders[partition]

    def unknown_topic(self, topic: str) -> ZafkaError:
        """Why `topic` cannot be used, in words."""
        code = self.topic_errors.get(topic)
        where = ", ".join(map(str, self.settings.bootstrap))
        if code == ErrorCode.INVALID_TOPIC_EXCEPTION:
            return UnknownTopic(
                f"{topic!r} is not a legal topic name: use letters, digits, '.', '_' and '-', at most 249"
            )
        if code in (None, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION):
            return UnknownTopic(
                f"topic {topic!r} does not exist at {where}; create it with `zafka topic create {topic}` "
                f"or zafka.Admin(...).create_topic({topic!r}, partitions=4)"
            )
        return UnknownTopic(f"topic {topic!r} at {where} cannot be used now: {error_name(code)}")

    # -- channels --------------------------------------------------------------------------------

    def channel(self, broker_id: int, purpose: str = "") -> Channel | None:
        """The channel to a broker if it is ready; else connecting begins or goes on. One for each purpose."""
        address = self.brokers.get(broker_id)
        return None if address is None else self._ready_channel(address, purpose, time.monotonic())

    def drop_channel(self, broker_id: int, purpose: str, reason: str) -> None:
        """Close a healthy channel because what it waits for is not wanted any more."""
        address = self.brokers.get(broker_id)
        channel = None if address is None else self._channels.pop((address, purpose), None)
        if channel is not None:
            channel.close(reason)

    def any_channel(self) -> Channel | None:
        """A ready channel to whomever; else connecting to everybody we know begins or goes on."""
        least: Channel | None = None
        for (_, purpose), channel in self._channels.items():
            if channel.ready and not purpose and (least is None or channel.outstanding < least.outstanding):
                least = channel
        if least is None:
            now_s = time.monotonic()
            for address in dict.fromkeys((*self.brokers.values(), *self.settings.bootstrap)):
                self._ready_channel(address, "", now_s)
        return least

    def _ready_channel(self, address: Address, purpose: str, now_s: float) -> Channel | None:
        channel = self._channels.get((address, purpose))
        if channel is not None:
            return channel if channel.ready else None
        if not self._closed and now_s >= self._failures.get(address, (0, 0.0, ""))[1]:
            timeout_s = self.settings.connect_timeout
            channel = Channel(
                self._io,
                address,
                client_id=self.settings.client_id,
                connect_timeout_s=timeout_s,
                on_change=self._io.wake,
                on_told=lambda told: self.on_told(told),
            )
            self._channels[address, purpose] = channel
            self._io.wake()
        return None

    def _look_at_channels(self, now_s: float) -> float:
        """Forget closed channels, note why, and return when to look again."""
        wake_s = NEVER
        for (address, purpose), channel in list(self._channels.items()):
            wake_s = min(wake_s, channel.check(now_s))
            if channel.closed:
                del self._channels[address, purpose]
                failures = self._failures[address][0] + 1 if address in self._failures else 1
                if channel.was_open:
                    failures = 1
                    self.connections_lost += 1
                logger.info("broker %s: %s", address, channel.reason)
                pause_s = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2 ** min(failures - 1, 10))
                self._failures[address] = (failures, now_s + pause_s, channel.reason)
                self.refresh_soon()
            elif channel.ready:
                self._failures.pop(address, None)
        retries = [at_s for _, at_s, _ in self._failures.values() if at_s > now_s]
        return min(wake_s, *retries) if retries else wake_s

    def bootstrap_error(self, now_s: float) -> NoBroker | None:
        """Why nobody was reached since the beginning, once it is time to say so."""
        if self.metadata_count or now_s < self._started_s + self.settings.bootstrap_timeout:
            return None
        connecting = any(not channel.closed for channel in self._channels.values())
        if connecting and now_s < self._started_s + self.settings.connect_timeout:
            return None
        return self.no_broker()

    def no_broker(self) -> NoBroker:
        """Nobody answers, in words."""
        tried = []
        for address in dict.fromkeys((*self.settings.bootstrap, *self.brokers.values())):
            reason = self._failures.get(address, (0, 0.0, "no answer yet"))[2]
            tried.append(f"{address} ({reason})")
        variable = "ZAFKA_BOOTSTRAP_ZMQ" if self.settings.bootstrap[0].is_zmq else "ZAFKA_BOOTSTRAP"
        return NoBroker(
            f"no broker answers at {', '.join(tried)}; start a broker there with `zafka up`, "
            f"or name a running one with bootstrap_servers or {variable}"
        )

    # -- single requests -------------------------------------------------------------------------

    def ask(self, ask: Ask) -> None:
        self._asks.append(ask)
        self._io.wake()

    def _serve_asks(self, now_s: float) -> float:
        wake_s = NEVER
        for ask in list(self._asks):
            if now_s >= ask.deadline_s:
                self._asks.remove(ask)
                reason = ask.last_error or ("no answer" if ask.in_flight else str(self.no_broker()))
                ask.on_answer(None, RequestTimedOut(f"{ask.api_key.name} got no answer in time: {reason}"))
                continue
            wake_s = min(wake_s, ask.deadline_s)
            if ask.in_flight:
                continue
            if now_s < ask.retry_at_s:
                wake_s = min(wake_s, ask.retry_at_s)
                continue
            channel = self._channel_for(ask.target)
            if channel is not None:
                ask.in_flight = True
                timeout_s = max(self.settings.request_timeout, ask.deadline_s - now_s)
                channel.send(ask.api_key, ask.message, partial(self._on_ask, ask), timeout_s)
        return wake_s

    def _channel_for(self, target: Target | int) -> Channel | None:
        if target is Target.CONTROLLER:
            # A Kafka broker forwards to its controller; so does any of ours.
            return self.channel(self.controller_id) or self.any_channel()
        return self.any_channel() if isinstance(target, Target) else self.channel(target)

    def _on_ask(self, ask: Ask, message: Any, error: ZafkaError | None) -> None:
        if ask not in self._asks:
            return  # its deadline came first
        ask.in_flight = False
        if isinstance(error, ConnectionLost | RequestTimedOut) and ask.repeat:
            ask.last_error = str(error)
            ask.retry_at_s = time.monotonic() + BACKOFF_FIRST_S
            return
        self._asks.remove(ask)
        ask.on_answer(message, error)

    # -- metadata --------------------------------------------------------------------------------

    def turn(self, now_s: float) -> float:
        """Do what is due; returns when to be called again at the latest."""
        wake_s = self._look_at_channels(now_s)
        if not self._refreshing:
            if now_s >= self._refresh_at_s:
                self._refresh(now_s)
            else:
                wake_s = min(wake_s, self._refresh_at_s)
        wake_s = min(wake_s, self._serve_asks(now_s))
        if not self.metadata_count:
            wake_s = min(wake_s, now_s + 0.05)  # somebody waits for the first contact
        return wake_s

    def _refresh(self, now_s: float) -> None:
        channel = self.any_channel()
        if channel is None:
            return  # a channel that gets ready wakes us
        self._refreshing = True
        self._refreshed_s = now_s
        self._refresh_backoff_s = min(BACKOFF_MAX_S, 2 * self._refresh_backoff_s)
        self._refresh_at_s = now_s + self.settings.metadata_max_age
        topics = [MetadataRequestTopic(name=name) for name in sorted(self._wanted)]
        request = MetadataRequest(topics=topics, allow_auto_topic_creation=False)
        asked = frozenset(self._wanted)
        channel.send(
            ApiKey.METADATA,
            request,
            lambda m, e: self._on_metadata(asked, m, e),
            min(10.0, self.settings.request_timeout),
        )

    def _on_metadata(self, asked: frozenset[str], answer: MetadataResponse | None, error: ZafkaError | None) -> None:
        self._refreshing = False
        if isinstance(error, NotSupportedYet):
            logger.error("%s", error)
        if answer is None:
            self.refresh_soon()
            return
        zmq_door = self.settings.bootstrap[0].is_zmq
        self.brokers = {broker.node_id: _address(broker.host, broker.port, zmq_door) for broker in answer.brokers}
        self.racks = {broker.node_id: broker.rack for broker in answer.brokers}
        self.cluster_id = answer.cluster_id or ""
        self.controller_id = answer.controller_id
        for topic in answer.topics:
            self._take_topic(topic)
        if not all(name in self.topics and min(self.topics[name].leaders, default=-1) >= 0 for name in asked):
            self.refresh_soon()  # also if the answer left a topic out
        self.metadata_count += 1
        self._close_strangers()
        self._on_change()

    def _take_topic(self, topic: MetadataResponseTopic) -> None:
        name = topic.name or ""
        if not topic.partitions:
            self.topic_errors[name] = topic.error_code or ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            self.topics.pop(name, None)
            return
        self.topic_errors.pop(name, None)
        partitions = sorted(topic.partitions, key=lambda partition: partition.partition_index)
        leaders = tuple(partition.leader_id for partition in partitions)
        led = tuple(index for index, leader in enumerate(leaders) if leader >= 0)
        epochs = tuple(partition.leader_epoch for partition in partitions)
        self.topics[name] = Topic(name, topic.topic_id, leaders, epochs, led or tuple(range(len(leaders))))

    def _close_strangers(self) -> None:
        """Bootstrap addresses that no broker calls its own, such as a load balancer's or another name, are not kept."""
        known = set(self.brokers.values())
        for (address, purpose), channel in list(self._channels.items()):
            if known and address not in known and channel.ready and not channel.outstanding:
                del self._channels[address, purpose]
                channel.close("not needed any more")

    def close(self, reason: str) -> None:
        """Close all channels; asks and requests end with an error."""
        self._closed = True
        for channel in list(self._channels.values()):
            channel.close(reason)
        asks, self._asks = self._asks, []
        for ask in asks:
            ask.on_answer(None, ConnectionLost(reason))


def _address(host: str, port: int, zmq_door: bool) -> Address:
    if host.startswith("ipc://"):
        return Address("ipc", host.removeprefix("ipc://"), 0)
    return Address("tcp" if zmq_door else "kafka", host, port)
