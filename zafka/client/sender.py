"""The I/O side of a producer: closed batches go out to the leaders, answers come back, order is kept.

Owns: the queues of all partitions and the producer id. Lives in the I/O thread.
Order and numbering are decided in `partition_queue.py`; here it is only carried out.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from zafka.client.accumulator import MayLeave
from zafka.client.batches import NO_OFFSET, ProducerBatch
from zafka.client.channel import Channel
from zafka.client.cluster import NEVER, Ask, Cluster, Target
from zafka.client.direct import Choice, DirectWay, DirectWays
from zafka.client.errors import (
    BrokerRefused,
    ConnectionLost,
    NotSupportedYet,
    RequestTimedOut,
    ZafkaError,
    is_retriable,
)
from zafka.client.partition_queue import NO_PRODUCER_ID, PartitionQueue, Verdict
from zafka.transport.direct import DirectAnswer
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.messages import (
    InitProducerIdRequest,
    InitProducerIdResponse,
    ProduceRequest,
    ProduceResponse,
)
from zafka.transport.kafka.messages.produce import PartitionProduceData, TopicProduceData

logger = logging.getLogger("zafka.client")

PRODUCER_ID_PAUSE_S = 0.1
LASTING_FAILURES = 8  # in a row, about 2.5 s

Key = tuple[str, int]  # topic, partition
Drain = Callable[[float, MayLeave], tuple[Iterable[ProducerBatch], float]]


@dataclass(slots=True)
class SendOptions:
    """acks: -1 all, 1 the leader, 0 nobody. Sizes in bytes, times in seconds."""

    acks: int
    idempotent: bool
    max_in_flight: int
    max_request_size: int
    request_timeout: float
    delivery_timeout: float


class Sender:
    """See the module. ways: the ways past the broker, None if all goes through it. `drain` hands over the batches that are to leave, and says when it wants to be asked again."""

    def __init__(self, cluster: Cluster, options: SendOptions, drain: Drain, ways: DirectWays | None = None) -> None:
        self._cluster = cluster
        self._ways = ways
        self._options = options
        self._drain = drain
        self._queues: dict[Key, PartitionQueue] = {}
        self._busy: dict[Key, PartitionQueue] = {}  # not empty; the first is served first
        self._producer_id = NO_PRODUCER_ID
        self._producer_epoch = -1
        self._asking_for_id = False
        self._ask_for_id_at_s = 0.0
        self.requests_sent = self.retries = self.errors = 0

    def turn(self, now_s: float) -> float:
        batches, wake_s = self._drain(now_s, self._has_room)
        for batch in batches:
            key = (batch.topic, batch.partition)
            queue = self._queues.get(key)
            if queue is None:
                queue = self._queues[key] = self._new_queue(batch.topic, batch.partition)
            queue.add(batch)
            self._busy[key] = queue
        if not self._busy:
            return wake_s
        wake_s = min(wake_s, self._expire(now_s))
        if self._options.idempotent:
            wake_s = min(wake_s, self._provide_producer_id(now_s))
        while self._send_round(now_s):
            pass
        if self._ways is not None:
            wake_s = min(wake_s, self._ways.check(now_s))
        for queue in self._busy.values():
            if queue.waiting and queue.retry_at_s > now_s:
                wake_s = min(wake_s, queue.retry_at_s)
        return wake_s

    def end(self, error: ZafkaError) -> None:
        """Nothing will be sent any more: fail everything, what is in flight too."""
        for queue in self._busy.values():
            for batch in (*queue.flying, *queue.waiting):
                batch.fail(error)
        self._busy.clear()
        for batch in self._drain(NEVER, self._has_room)[0]:
            batch.fail(error)
        if self._ways is not None:
            self._ways.close(str(error))

    def _has_room(self, topic: str, partition: int) -> bool:
        queue = self._queues.get((topic, partition))
        return queue is None or queue.has_room

    def _new_queue(self, topic: str, partition: int) -> PartitionQueue:
        options = self._options
        # Without sequence numbers, only one at a time keeps the order over retries; with acks=0 nothing is retried.
        in_flight_max = options.max_in_flight if options.idempotent or options.acks == 0 else 1
        return PartitionQueue(topic, partition, idempotent=options.idempotent, in_flight_max=in_flight_max)

    def _expire(self, now_s: float) -> float:
        wake_s = NEVER
        for key, queue in list(self._busy.items()):
            deadline_s = queue.deadline_s
            if deadline_s <= now_s:
                if not queue.last_error:
                    queue.last_error = self._obstacle(queue)
                queue.expire(now_s)
                if queue.is_empty:
                    del self._busy[key]
                deadline_s = queue.deadline_s
            wake_s = min(wake_s, deadline_s)
        return wake_s

    def _obstacle(self, queue: PartitionQueue) -> str:
        """What a queue without an error of its own waits for."""
        leader = self._cluster.leader(queue.topic, queue.partition)
        if leader < 0:
            return f"{queue.topic}-{queue.partition} has no leader"
        if self._cluster.channel(leader) is None:
            return str(self._cluster.no_broker())
        return "no producer id yet" if queue.needs_producer_id else ""

    # -- requests --------------------------------------------------------------------------------

    def _send_round(self, now_s: float) -> bool:
        """Send at most one request to each leader, and one batch to each partition that is reached directly. True if
        there may be more to send."""
        sent = False
        by_channel: dict[Channel, list[tuple[PartitionQueue, ProducerBatch]]] = {}
        sizes: dict[Channel, int] = {}
        for key, queue in list(self._busy.items()):
            batch = queue.peek(now_s)
            if batch is None:
                continue
            way = Choice.BROKER if self._ways is None else self._ways.choose(queue, batch, now_s)
            if way is Choice.HOLD:
                continue
            if isinstance(way, DirectWay):
                self._send_directly(way, queue, batch, now_s)
                sent = True
                continue
            leader = self._cluster.leader(queue.topic, queue.partition)
            channel = self._cluster.channel(leader)
            if channel is None:
                if leader < 0:
                    self._cluster.refresh_soon()
                continue
            if channel.outstanding >= self._options.max_in_flight:
                continue
            size = sizes.get(channel, 0) + batch.size_bytes
            if channel in by_channel and size > self._options.max_request_size:
                continue
            sizes[channel] = size
            queue.take(batch)
            by_channel.setdefault(channel, []).append((queue, batch))
            # To the end of the line, so that no partition starves behind busier ones.
            del self._busy[key]
            self._busy[key] = queue
        for channel, parts in by_channel.items():
            self._send(channel, parts)
        return sent or bool(by_channel)

    def _send_directly(self, way: DirectWay, queue: PartitionQueue, batch: ProducerBatch, now_s: float) -> None:
        queue.take(batch)
        self.requests_sent += 1
        on_answer = partial(self._on_direct_answer, queue, batch)
        way.send(batch.encode(), on_answer, now_s + self._options.request_timeout)

    def _send(self, channel: Channel, parts: list[tuple[PartitionQueue, ProducerBatch]]) -> None:
        topics: dict[str, TopicProduceData] = {}
        for queue, batch in parts:
            topic = topics.get(queue.topic)
            if topic is None:
                topic = topics[queue.topic] = TopicProduceData(name=queue.topic, partition_data=[])
            topic.partition_data.append(PartitionProduceData(index=queue.partition, records=batch.encode()))
        timeout_ms = int(self._options.request_timeout * 1000)
        request = ProduceRequest(acks=self._options.acks, timeout_ms=timeout_ms, topic_data=list(topics.values()))
        self.requests_sent += 1
        if self._options.acks == 0:
            self._send_blindly(channel, request, parts)
            return
        flying = {(queue.topic, queue.partition): (queue, batch) for queue, batch in parts}
        channel.send(ApiKey.PRODUCE, request, lambda m, e: self._on_answer(flying, m, e), self._options.request_timeout)

    def _send_blindly(
        self, channel: Channel, request: ProduceRequest, parts: list[tuple[PartitionQueue, ProducerBatch]]
    ) -> None:
        try:
            channel.send_without_answer(ApiKey.PRODUCE, request)
        except NotSupportedYet as error:
            for queue, batch in parts:
                self._fail(queue, batch, error)
            return
        for queue, batch in parts:
            self._acknowledge(queue, batch, NO_OFFSET, -1)

    def _on_answer(
        self,
        flying: dict[Key, tuple[PartitionQueue, ProducerBatch]],
        answer: ProduceResponse | None,
        error: ZafkaError | None,
    ) -> None:
        now_s = time.monotonic()
        if answer is not None:
            for topic in answer.responses:
                for part in topic.partition_responses:
                    queue, batch = flying.pop((topic.name, part.index), (None, None))
                    if queue is None or batch is None:
                        continue
                    if part.error_code == 0:
                        self._acknowledge(queue, batch, part.base_offset, part.log_append_time_ms)
                    else:
                        self._on_error(queue, batch, part, now_s)
            error = ConnectionLost("the broker's answer left the partition out")
        if flying:
            self.errors += 1
        for queue, batch in flying.values():
            if isinstance(error, ConnectionLost | RequestTimedOut):
                self._lose(queue, batch, error, now_s)
            else:
                assert error is not None
                self._fail(queue, batch, error)

    def _on_direct_answer(
        self, queue: PartitionQueue, batch: ProducerBatch, answer: DirectAnswer | None, error: ZafkaError | None
    ) -> None:
        assert self._ways is not None
        if answer is None:
            assert error is not None
            self.errors += 1
            self._lose(queue, batch, error, time.monotonic())
            return
        if answer.error_code == 0:
            self._acknowledge(queue, batch, answer.base_offset, answer.log_append_time_ms)
            self._ways.on_acknowledged(queue)
        else:  # some of them end the connection; what is behind it on its way is lost then
            self._on_error(queue, batch, answer, time.monotonic())

    def _lose(self, queue: PartitionQueue, batch: ProducerBatch, error: ZafkaError, now_s: float) -> None:
        """The connection ended without an answer."""
        if queue.on_lost(batch, str(error), now_s) is Verdict.FAILED:
            self._forget_if_empty(queue)
        else:
            self.retries += 1
            self._say_what_lasts(queue)
        self._cluster.refresh_soon()

    def _on_error(self, queue: PartitionQueue, batch: ProducerBatch, part: Any, now_s: float) -> None:
        self.errors += 1
        verdict = queue.on_error(batch, part.error_code, part.error_message, now_s)
        if verdict is Verdict.DONE:
            batch.complete(part.base_offset, part.log_append_time_ms)
        elif verdict is Verdict.RETRY:
            self.retries += 1
            logger.info("%r: %s, attempt %d", batch, queue.last_error, batch.attempts)
            self._say_what_lasts(queue)
            self._cluster.refresh_soon()
        self._forget_if_empty(queue)

    def _say_what_lasts(self, queue: PartitionQueue) -> None:
        """A restart of a partition is over before this; who waits for longer is told once what for."""
        if queue.failures == LASTING_FAILURES and not queue.complained:
            queue.complained = True
            logger.warning(
                "%s-%d takes no records for now: %s; each is tried again for %g s (delivery_timeout)",
                queue.topic, queue.partition, queue.last_error, self._options.delivery_timeout)

    def _acknowledge(self, queue: PartitionQueue, batch: ProducerBatch, base_offset: int, time_ms: int) -> None:
        queue.on_acknowledged(batch)
        batch.complete(base_offset, time_ms)
        self._cluster.settled()
        self._forget_if_empty(queue)

    def _fail(self, queue: PartitionQueue, batch: ProducerBatch, error: ZafkaError) -> None:
        queue.on_refused(batch)
        batch.fail(error)
        self._forget_if_empty(queue)

    def _forget_if_empty(self, queue: PartitionQueue) -> None:
        if queue.is_empty:
            self._busy.pop((queue.topic, queue.partition), None)

    # -- producer id -----------------------------------------------------------------------------

    def _provide_producer_id(self, now_s: float) -> float:
        """Give a producer id to queues that need one; ask for one if there is none. Returns when to look again."""
        needy = [queue for queue in self._busy.values() if queue.needs_producer_id]
        if not needy:
            return NEVER
        if any(queue.used_up_id == self._producer_id != NO_PRODUCER_ID for queue in needy):
            self._producer_id = NO_PRODUCER_ID  # 32,767 epochs are used up: a fresh id
        if self._producer_id != NO_PRODUCER_ID:
            for queue in needy:
                queue.begin(self._producer_id, self._producer_epoch)
            return NEVER
        if self._asking_for_id:
            return NEVER
        if now_s < self._ask_for_id_at_s:
            return self._ask_for_id_at_s
        self._asking_for_id = True
        request = InitProducerIdRequest(transactional_id=None, transaction_timeout_ms=2**31 - 1)
        deadline_s = now_s + self._options.delivery_timeout
        self._cluster.ask(
            Ask(Target.ANY, ApiKey.INIT_PRODUCER_ID, request, self._on_producer_id, deadline_s, repeat=True)
        )
        return NEVER

    def _on_producer_id(self, answer: InitProducerIdResponse | None, error: ZafkaError | None) -> None:
        self._asking_for_id = False
        self._ask_for_id_at_s = time.monotonic() + PRODUCER_ID_PAUSE_S
        if answer is not None and answer.error_code == 0:
            self._producer_id, self._producer_epoch = answer.producer_id, answer.producer_epoch
            return
        if answer is not None and not is_retriable(answer.error_code):
            error = BrokerRefused(
                "the cluster gave no producer id; enable_idempotence=False does without", answer.error_code
            )
        elif not isinstance(error, NotSupportedYet):
            return  # asked for again, until the batches expire
        for queue in list(self._busy.values()):
            if queue.needs_producer_id:
                for batch in list(queue.waiting):
                    queue.waiting.remove(batch)
                    batch.fail(error)
                self._forget_if_empty(queue)
