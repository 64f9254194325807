"""What all simulated clients have: connections, requests in order, answers matched, a time after which they give up.

Owns: `Client`. Everything goes through the real bytes of Kafka's protocol into the gateway's connections.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.codec import read_response_header, request_header, request_writer, response_reader
from zafka.transport.kafka.messages.metadata import MetadataRequest, MetadataRequestTopic

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation

METADATA_VERSION = 12
BACKOFF_S = 0.05


class Asked(NamedTuple):
    api: ApiKey
    version: int
    correlation_id: int
    on_answer: Callable[[Any], None]
    on_lost: Callable[[], None]


class Link:
    """A connection and what is asked on it."""

    def __init__(self, client: Client, broker_id: int) -> None:
        self.client = client
        self.broker_id = broker_id
        self.asked: deque[Asked] = deque()
        self.connection = client.simulation.machine.connect(
            broker_id, client.name, on_frames=self._on_frames, on_lost=self.lose)

    def lose(self) -> None:
        """No answer comes any more: whoever waits is told, oldest first."""
        if self.client.engine.tell is not None:
            self.client.engine.detail(self.client.name, f"lost its connection to broker {self.broker_id}")
        self.connection.close()
        if self.client.links.get(self.broker_id) is self:
            del self.client.links[self.broker_id]
        asked, self.asked = self.asked, deque()
        for each in asked:
            each.on_lost()

    def _on_frames(self, frames: list[bytes]) -> None:
        for frame in frames:
            each = self.asked.popleft()
            view = memoryview(frame)
            correlation_id, position = read_response_header(view, each.api, each.version)
            if correlation_id != each.correlation_id:
                self.client.violate("correlation", f"{correlation_id} answers {each.correlation_id}, {each.api!r}")
            answer = response_reader(each.api, each.version)(view, position)
            if self.client.engine.tell is not None:
                self.client.engine.detail(self.client.name, f"<- broker {self.broker_id}", answer)
            each.on_answer(answer)


class Client:
    """One client. done: it has nothing to do any more, and nothing outstanding.

    request_s: how long it waits for an answer."""

    def __init__(self, simulation: Simulation, name: str) -> None:
        self.simulation = simulation
        self.engine = simulation.engine
        self.history = simulation.history
        self.request_s = 4.0
        self.name = name
        self.random = simulation.engine.stream(f"client {name}")
        self.links: dict[int, Link] = {}
        self.leaders: dict[tuple[str, int], int] = {}
        self.done = False
        self.stopped = False
        self._last_id = 0
        self._asking_metadata = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} done={self.done}>"

    def start(self) -> None:
        """Begin; called once."""

    def finish(self) -> None:
        """The faults are over: come to an end."""

    def violate(self, check: str, what: str) -> None:
        self.engine.violate(check, f"{self.name}: {what}")

    def after(self, seconds: float, call: Callable[..., None], *arguments: Any) -> None:
        self.engine.after(seconds, self._call, call, arguments)

    def _call(self, call: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        if not self.stopped:
            call(*arguments)

    def stop(self) -> None:
        """Hang up, for good."""
        self.stopped = True
        for link in list(self.links.values()):
            link.connection.close()
        self.links.clear()

    def drop_connections(self) -> None:
        """The network resets them."""
        for link in list(self.links.values()):
            link.lose()

    # -- requests --------------------------------------------------------------------------------

    def ask(
        self, broker_id: int, api: ApiKey, version: int, request: Any,
        on_answer: Callable[[Any], None] | None, on_lost: Callable[[], None],
    ) -> None:
        """Send a request; exactly one of the two is called later. on_answer None: there is no answer."""
        link = self.links.get(broker_id)
        if link is None:
            link = self.links[broker_id] = Link(self, broker_id)
        self._last_id += 1
        frame = b"".join(
            (request_header(api, version, self._last_id, self.name), *request_writer(api, version)(request)))
        if on_answer is not None:
            asked = Asked(api, version, self._last_id, on_answer, on_lost)
            link.asked.append(asked)
            self.engine.after(self.request_s, self._give_up, link, asked)
        if self.engine.tell is not None:
            self.engine.detail(self.name, f"-> broker {broker_id}", request)
        link.connection.send(frame)

    def _give_up(self, link: Link, asked: Asked) -> None:
        if link.asked and link.asked[0].correlation_id <= asked.correlation_id and asked in link.asked:
            self.engine.counts["requests given up"] += 1
            link.lose()

    def any_broker(self) -> int:
        return self.random.choice(self.simulation.broker_ids)

    # -- who leads -------------------------------------------------------------------------------

    def leader_of(self, topic: str, partition: int) -> int | None:
        """The broker to ask; if it is not known, it will be, and `on_leaders` is called."""
        broker_id = self.leaders.get((topic, partition))
        if broker_id is None and not self._asking_metadata:
            self._asking_metadata = True
            request = MetadataRequest([MetadataRequestTopic(name=topic)], allow_auto_topic_creation=False)
            self.ask(self.any_broker(), ApiKey.METADATA, METADATA_VERSION, request, self._on_metadata, self._no_metadata)
        return broker_id

    def _on_metadata(self, answer: Any) -> None:
        self._asking_metadata = False
        for topic in answer.topics:
            for partition in topic.partitions:
                if partition.leader_id >= 0 or partition.replica_nodes:
                    # Where nobody leads, as with a replica that is offline, the one that has it says why.
                    broker_id = partition.leader_id if partition.leader_id >= 0 else partition.replica_nodes[0]
                    self.leaders[topic.name, partition.partition_index] = broker_id
        self.after(0.0 if self.leaders else BACKOFF_S, self.on_leaders)

    def _no_metadata(self) -> None:
        self._asking_metadata = False
        self.after(BACKOFF_S, self.on_leaders)

    def on_leaders(self) -> None:
        """Something is known of the leaders that was not."""
