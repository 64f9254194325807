"""What our client makes of a hostile broker's answers: well-formed or not, the I/O thread lives on and the user is told.

The client's own classes in one thread, time as an argument; the socket is replaced by `_Script`, which answers each
request with the next bytes of the input. `run` allows no exception: all that runs here is the I/O thread's, but for the
decoding of records, which may end in BadBatch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import count
from random import Random
from typing import Any, cast

from tests.fuzz.engine import Decoder, Parts
from tests.fuzz.storage_decoders import make_batch as make_record_batch
from tests.kafka_oracle import kio_class, kio_write, random_message
from zafka.client import channel as channel_module
from zafka.client.addresses import Address
from zafka.client.batches import ProducerBatch
from zafka.client.channel import OUR_VERSIONS, Channel
from zafka.client.cluster import NEVER, Ask, Cluster, Settings, Target
from zafka.client.errors import ZafkaError
from zafka.client.fetcher import Fetcher, FetchOptions
from zafka.client.offsets import EARLIEST, list_offsets_request, read_offsets
from zafka.client.records import TopicPartition
from zafka.client.sender import Sender, SendOptions
from zafka.storage.batch import walk
from zafka.storage.errors import BadBatch
from zafka.storage.records import BatchBuilder, decode_batch
from zafka.transport.kafka import messages as kafka
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.codec import read_request_header, response_header, response_writer
from zafka.transport.kafka.messages import fetch, list_offsets, metadata, produce
from zafka.transport.kafka.types import Buffer

NUMBERS = [0, 0, 0, 1, -1, 2, 3, 6, 87, 999, 2**15 - 1, -(2**15)]
LONG_NUMBERS = [0, 1, 20, -1, -2, 2**63 - 1, -(2**63), 2**31]
WHERE = TopicPartition("t", 0)


class _Io:
    """The I/O thread as its users know it, when there is one thread only."""

    def wake(self) -> None: ...

    def call(self, function: Callable[[], None]) -> None:
        function()


class _Script:
    """A connection whose other end says what the input says. answers: bodies by API, used one after the other."""

    def __init__(self, owner: Any, answers: dict[int, deque[bytes]]) -> None:
        self.owner = owner
        self.answers = answers
        self.pending: deque[bytes] = deque()
        self.closed = False

    def send(self, chunks: Sequence[Buffer]) -> None:
        frame = b"".join(chunks)
        header = read_request_header(memoryview(frame))
        bodies = self.answers.get(header.api_key)
        if bodies:
            body = bodies.popleft() if len(bodies) > 1 else bodies[0]
            self.pending.append(response_header(header.api_key, header.version, header.correlation_id) + body)

    def close(self, reason: str) -> None:
        if not self.closed:
            self.closed = True
            self.owner.on_closed(reason)

    def deliver(self) -> bool:
        if self.closed or not self.pending:
            return False
        self.owner.on_frame(memoryview(self.pending.popleft()))
        return True


class Conversation:
    """A client's cluster that talks to a script."""

    def __init__(self, answers: dict[int, deque[bytes]]) -> None:
        self.answers = answers
        self.scripts: list[_Script] = []
        self.now_s = 1000.0
        settings = Settings((Address("kafka", "127.0.0.1", 9092),))
        self.cluster = Cluster(cast(Any, _Io()), settings, lambda: None)
        self.cluster.want(["t"])

    def connect(self, io: Any, address: Address, owner: Channel) -> _Script:
        script = _Script(owner, self.answers)
        self.scripts.append(script)
        return script

    def rounds(self, worker: Callable[[float], float], number: int = 8) -> None:
        """Turns of the I/O thread, each with all that came delivered."""
        before = channel_module.connect
        channel_module.connect = self.connect  # type: ignore[assignment]
        try:
            for _ in range(number):
                worker(self.now_s)
                self.cluster.turn(self.now_s)
                for script in self.scripts:
                    if not script.closed and not script.owner.was_open:
                        script.owner.on_open()
                    for _ in range(5):
                        if not script.deliver():
                            break
                self.now_s += 2.0
            str(self.cluster.no_broker())
            for name in (*self.cluster.topics, *self.cluster.topic_errors):
                str(self.cluster.unknown_topic(name))
            assert all(topic.leaders for topic in self.cluster.topics.values()), "nothing to choose a partition from"
            self.cluster.close("the end")
        finally:
            channel_module.connect = before


def _body(key: ApiKey, message: Any) -> bytes:
    return b"".join(response_writer(key, OUR_VERSIONS[key][1])(message))


def _versions(rng: Random) -> bytes:
    spans = [(int(key), *span) for key, span in OUR_VERSIONS.items()]
    if rng.random() < 0.1:
        spans = [(key, low, rng.choice((high, -1, 2**15 - 1))) for key, low, high in spans]
    apis = [kafka.ApiVersion(*span) for span in spans]
    return _body(ApiKey.API_VERSIONS, kafka.ApiVersionsResponse(0, apis))


def _metadata(rng: Random) -> bytes:
    odd = rng.random() < 0.5

    def number(usual: int) -> int:
        return rng.choice(NUMBERS) if odd and rng.random() < 0.3 else usual

    partitions = [
        metadata.MetadataResponsePartition(number(0), number(index), number(1), number(0), [1], [1], [])
        for index in range(rng.choice((0, 1, 1, 3)) if odd else 1)
    ]
    name = rng.choice((None, "", "other", "t")) if odd else "t"
    topics = [metadata.MetadataResponseTopic(number(0), name, bytes(16), False, partitions)]
    brokers = [metadata.MetadataResponseBroker(
        number(1), rng.choice(("", "\0", "h" * 300, "ipc://x", "ü")) if odd else "127.0.0.1", number(9092), None)]
    if rng.random() < 0.1:
        return kio_write(random_message(kio_class(ApiKey.METADATA, "response", OUR_VERSIONS[ApiKey.METADATA][1]), rng))
    return _body(ApiKey.METADATA, kafka.MetadataResponse(0, brokers, "c", number(1), topics))


def _usual(parts: Parts, key: ApiKey, rng_answers: int) -> dict[int, deque[bytes]]:
    """The first two parts are the answers to ApiVersions and Metadata, the others to `key`."""
    parts = [*parts, b"", b"", b""]
    return {
        ApiKey.API_VERSIONS: deque(parts[:1]), ApiKey.METADATA: deque(parts[1:2]),
        key: deque(parts[2 : 2 + rng_answers]),
    }  # fmt: skip


# -- a consumer ---------------------------------------------------------------------------------------


def make_fetched(rng: Random) -> Parts:
    records = memoryview(b"".join(
        bytes(make_record_batch(rng.randrange(5), rng)[0]) for _ in range(rng.randrange(3))))
    answers = [_body(ApiKey.FETCH, kafka.FetchResponse(0, rng.choice((0, 0, 0, 6)), 0, [fetch.FetchableTopicResponse(
        topic="t", partitions=[fetch.PartitionData(
            rng.choice((0, 0, 0, 1)), rng.choice((0, 0, *NUMBERS)), rng.choice(LONG_NUMBERS), records=records)])]))
        for _ in range(2)]  # fmt: skip
    return [_versions(rng), _metadata(rng), *answers]


def read_fetched(parts: Parts) -> None:
    talk = Conversation(_usual(parts, ApiKey.FETCH, 2))
    talk.answers[ApiKey.LIST_OFFSETS] = deque([_body(ApiKey.LIST_OFFSETS, kafka.ListOffsetsResponse(
        0, [list_offsets.ListOffsetsTopicResponse("t", [list_offsets.ListOffsetsPartitionResponse(0, 0)])]))])
    options = FetchOptions(EARLIEST, 1, 1 << 20, 1 << 20, 0.5, 30.0)
    fetcher = Fetcher(talk.cluster, options, lambda: None)
    fetcher.assign({WHERE: EARLIEST})
    talk.rounds(fetcher.turn)
    for chunk in fetcher.chunks:
        try:
            for position, header in walk(chunk.records, check_crc=True):
                decode_batch(chunk.records[position:], header, from_offset=chunk.offset, max_bytes=1 << 20)
        except BadBatch:
            continue
    for reading in fetcher.failed:
        assert isinstance(reading.error, ZafkaError) and str(reading.error)


def make_offsets(rng: Random) -> Parts:
    answer = kafka.ListOffsetsResponse(0, [list_offsets.ListOffsetsTopicResponse("t", [
        list_offsets.ListOffsetsPartitionResponse(
            rng.choice(NUMBERS[:4]), rng.choice(NUMBERS), rng.choice(LONG_NUMBERS), rng.choice(LONG_NUMBERS))])])  # fmt: skip
    return [_versions(rng), _metadata(rng), _body(ApiKey.LIST_OFFSETS, answer)]


def read_found_offsets(parts: Parts) -> None:
    talk = Conversation(_usual(parts, ApiKey.LIST_OFFSETS, 1))
    fetcher = Fetcher(talk.cluster, FetchOptions(None, 1, 1 << 20, 1 << 20, 0.5, 30.0), lambda: None)
    fetcher.assign({WHERE: EARLIEST})
    answered: list[Any] = []

    def on_answer(answer: Any, error: ZafkaError | None) -> None:
        answered.append(read_offsets(answer) if answer is not None else str(error))

    request = list_offsets_request({WHERE: 5})
    talk.cluster.ask(Ask(Target.ANY, ApiKey.LIST_OFFSETS, request, on_answer, talk.now_s + 9, repeat=True))
    talk.rounds(fetcher.turn)
    assert len(answered) == 1


# -- a producer ---------------------------------------------------------------------------------------


def make_produced(rng: Random) -> Parts:
    answers = [_body(ApiKey.PRODUCE, kafka.ProduceResponse([produce.TopicProduceResponse(name="t", partition_responses=[
        produce.PartitionProduceResponse(
            rng.choice(NUMBERS[:4]), rng.choice(NUMBERS), rng.choice(LONG_NUMBERS), rng.choice(LONG_NUMBERS), 0, [], None)
    ])])) for _ in range(3)]  # fmt: skip
    ids = kafka.InitProducerIdResponse(0, rng.choice(NUMBERS), rng.choice(LONG_NUMBERS), rng.choice(NUMBERS))
    return [_versions(rng), _metadata(rng), *answers, _body(ApiKey.INIT_PRODUCER_ID, ids)]


def read_produced(parts: Parts) -> None:
    """Every batch is completed or failed in the end, once."""
    talk = Conversation(_usual(parts, ApiKey.PRODUCE, 3))
    talk.answers[ApiKey.INIT_PRODUCER_ID] = deque([*parts[5:6], b""][:1])
    orders = count()
    batches: deque[ProducerBatch] = deque()
    for _ in range(4):
        batch = ProducerBatch("t", 0, BatchBuilder(), now_s=talk.now_s, linger_s=0.0, deadline_s=talk.now_s + 10)
        batch.builder.append(1000, None, b"value")
        batch.count, batch.closed, batch.order = 1, True, next(orders)
        batches.append(batch)
    every = list(batches)
    def drain(now_s: float, *_: Any) -> tuple[list[ProducerBatch], float]:
        return ([batches.popleft()] if batches else []), NEVER

    sender = Sender(talk.cluster, SendOptions(-1, True, 5, 1 << 20, 30.0, 10.0), drain)
    talk.rounds(sender.turn, 10)
    sender.end(ZafkaError("the end"))
    assert all(batch.done for batch in every)
    assert all(batch.error is None or isinstance(batch.error, ZafkaError) for batch in every)


# -- whoever asks -------------------------------------------------------------------------------------


def make_greeting(rng: Random) -> Parts:
    return [_versions(rng), _metadata(rng)]


def read_greeting(parts: Parts) -> None:
    talk = Conversation(_usual(parts, ApiKey.DESCRIBE_CONFIGS, 0))
    talk.rounds(lambda now_s: NEVER)


def decoders() -> Iterator[Decoder]:
    words = [b"\x00\x01t", b"\x02t", b"\xff\xff\xff\xff", b"\x00\x00\x00\x09"]
    yield Decoder("client greeting", make_greeting, read_greeting, words=words)
    yield Decoder("client fetch", partial(make_fetched), read_fetched, words=words, memory_max=24 << 20)
    yield Decoder("client offsets", make_offsets, read_found_offsets, words=words)
    yield Decoder("client produce", make_produced, read_produced, words=words)
