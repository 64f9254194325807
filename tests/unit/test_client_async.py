"""The async clients: the same behaviour as the blocking ones, clean cancellation, and few wake-ups of the loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator

import pytest

import zafka
from tests.unit.client_fake_broker import FakeBroker
from zafka.client.errors import BrokerRefused, BufferFull, ClientClosed, DeliveryFailed, NoBroker, UnknownTopic
from zafka.client.loop_bridge import LoopBridge
from zafka.client.waiting import Signal, until
from zafka.storage.batch import read_header
from zafka.storage.records import decode_batch
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(params=["kafka", "zmq"])
def broker(request: pytest.FixtureRequest) -> Iterator[FakeBroker]:
    with FakeBroker({"t": 3, "one": 1}, request.param) as broker:
        yield broker


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = threading.enumerate()
    yield
    left = [thread.name for thread in threading.enumerate() if thread not in before and thread.name.startswith("zafka-")]
    assert not left


def values(broker: FakeBroker, topic: str, partition: int = 0) -> list[bytes | None]:
    return [
        record.value
        for data in broker.topics[topic][partition].batches
        for record in decode_batch(data, read_header(data))
    ]


async def condition(check: object, seconds: float = 20.0) -> None:
    """Wait until `check()`."""
    deadline_s = time.monotonic() + seconds
    while not check():  # type: ignore[operator]
        assert time.monotonic() < deadline_s, "it did not come to that in time"
        await asyncio.sleep(0.01)


def test_a_record_there_and_back(broker: FakeBroker) -> None:
    async def main() -> None:
        async with (
            zafka.AsyncProducer(broker.address) as producer,
            zafka.AsyncConsumer("one", bootstrap_servers=broker.address, auto_offset_reset="earliest") as consumer,
        ):
            delivery = await producer.send("one", b"value", key=b"key", headers={"h": b"1"}, timestamp_ms=7)
            assert await delivery == (await delivery) == zafka.RecordMetadata("one", 0, 0, 7)
            assert delivery.done() and "offset 0" in repr(delivery)
            spans = await (await producer.send_many("one", [b"a", b"b"]))
            assert [(span.base_offset, span.record_count) for span in spans] == [(1, 2)]
            seen = []
            async for record in consumer:
                seen.append(record.value)
                if len(seen) == 3:
                    break
            assert seen == [b"value", b"a", b"b"]
            assert await consumer.position(("one", 0)) == 3
            assert await consumer.end_offsets([("one", 0)]) == {("one", 0): 3}
            assert await producer.partitions_for("t") == 3

    asyncio.run(main())


def test_batches_and_records_end_at_their_timeout(broker: FakeBroker) -> None:
    async def main() -> None:
        async with zafka.AsyncProducer(broker.address) as producer:
            await producer.send_many("one", [b"%d" % number for number in range(1000)])
            await producer.flush()
        async with zafka.AsyncConsumer("one", bootstrap_servers=broker.address, auto_offset_reset="earliest") as consumer:
            lengths = [len(batch) async for batch in consumer.batches(max_records=300, timeout=0.3)]
            assert sum(lengths) == 1000 and max(lengths) == 300
            assert [record async for record in consumer.records(timeout=0.1)] == []
            assert await consumer.poll(0.05) == []

    asyncio.run(main())


def test_a_thousand_tasks_share_few_batches_and_wake_ups(broker: FakeBroker) -> None:
    async def main() -> None:
        async with zafka.AsyncProducer(broker.address) as producer:
            await producer.partitions_for("one")
            bridge = producer._bridge
            assert bridge is not None
            calls = []
            schedule = bridge.loop.call_soon_threadsafe
            bridge.loop.call_soon_threadsafe = lambda *args, **named: (calls.append(1), schedule(*args, **named))[1]  # type: ignore[method-assign,assignment,return-value,func-returns-value]

            async def one(number: int) -> int:
                return (await (await producer.send("one", b"%d" % number))).offset

            offsets = await asyncio.gather(*map(one, range(1000)))
            assert sorted(offsets) == list(range(1000))
            assert len(broker.topics["one"][0].batches) < 20
            assert len(calls) < 100

    asyncio.run(main())


def test_a_cancelled_wait_for_room_sends_nothing_and_harms_nobody(broker: FakeBroker) -> None:
    hold = threading.Event()
    hold.set()
    broker.fault = lambda api, when: (
        ErrorCode.NOT_LEADER_OR_FOLLOWER if api is ApiKey.PRODUCE and hold.is_set() else None
    )

    async def main() -> None:
        async with zafka.AsyncProducer(broker.address, buffer_memory=1000, max_block=60) as producer:
            first = await producer.send("one", bytes(1000))
            waiting = asyncio.create_task(producer.send("one", b"cancelled"))
            await condition(lambda: producer._accumulator._waiting_for_room == 1)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert producer._accumulator._waiting_for_room == 0
            awaiting = [asyncio.ensure_future(first) for _ in range(2)]
            await asyncio.sleep(0)
            awaiting[0].cancel()
            hold.clear()
            assert (await awaiting[1]).offset == 0  # the other waiter is not cancelled with it
            await (await producer.send("one", b"last"))

    asyncio.run(main())
    assert values(broker, "one") == [bytes(1000), b"last"]


def test_a_full_buffer_raises_after_max_block(broker: FakeBroker) -> None:
    broker.fault = lambda api, when: "hang" if api is ApiKey.PRODUCE else None

    async def main() -> None:
        producer = zafka.AsyncProducer(broker.address, buffer_memory=1000, max_block=0.1)
        await producer.start()
        await producer.send("one", bytes(1000))
        with pytest.raises(BufferFull):
            await producer.send("one", b"x")
        with pytest.raises(BufferFull):
            await producer.send_many("one", [b"x"])
        with pytest.raises(DeliveryFailed):
            await producer.close(timeout=0.05)
        await producer.close()
        with pytest.raises(ClientClosed):
            await producer.send("one", b"x")

    asyncio.run(main())


def test_a_cancelled_poll_loses_no_record(broker: FakeBroker) -> None:
    async def main() -> None:
        async with (
            zafka.AsyncProducer(broker.address) as producer,
            zafka.AsyncConsumer("one", bootstrap_servers=broker.address, auto_offset_reset="earliest") as consumer,
        ):
            seen: list[bytes | None] = []
            for number in range(30):
                waiting = asyncio.create_task(consumer.poll(30))
                await asyncio.sleep(0)
                if number % 3:
                    await (await producer.send("one", b"%d" % number))
                if number % 2:
                    waiting.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        seen += [record.value for record in await waiting]
                else:
                    if not number % 3:
                        await (await producer.send("one", b"%d" % number))
                    seen += [record.value for record in await waiting]
            while rest := [record.value for record in await consumer.poll(0.5)]:
                seen += rest
            assert seen == values(broker, "one")

    asyncio.run(main())


def test_cancelling_the_whole_program_is_clean(broker: FakeBroker) -> None:
    broker.fault = lambda api, when: "hang" if api is ApiKey.PRODUCE else None

    async def main() -> None:
        async with zafka.AsyncProducer(broker.address) as producer:
            await (await producer.send("one", b"x"))

    async def cancelled() -> None:
        task = asyncio.create_task(main())
        await condition(lambda: broker.count(ApiKey.PRODUCE))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())


def test_a_cancelled_close_ends_the_thread(broker: FakeBroker) -> None:
    broker.fault = lambda api, when: "hang" if api is ApiKey.PRODUCE else None

    async def main() -> None:
        producer = zafka.AsyncProducer(broker.address)
        await producer.start()
        delivery = await producer.send("one", b"x")
        closing = asyncio.create_task(producer.close())
        await condition(lambda: broker.count(ApiKey.PRODUCE))
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        with pytest.raises(ClientClosed):
            await delivery

    asyncio.run(main())


def test_errors_are_those_of_the_blocking_clients(broker: FakeBroker) -> None:
    refuse = iter([ErrorCode.INVALID_RECORD])
    broker.fault = lambda api, when: next(refuse, None) if api is ApiKey.PRODUCE else None

    async def main() -> None:
        with pytest.raises(NoBroker):
            await zafka.AsyncProducer("127.0.0.1:1", bootstrap_timeout=0.1).start()
        with pytest.raises(UnknownTopic):
            async with zafka.AsyncConsumer("nowhere", bootstrap_servers=broker.address):
                raise AssertionError("it was let in")
        with pytest.raises(ClientClosed, match="not started"):
            await zafka.AsyncProducer(broker.address).send("one", b"x")
        with pytest.raises(ClientClosed, match="not started"):
            await zafka.AsyncAdmin(broker.address).list_topics()
        async with zafka.AsyncProducer(broker.address) as producer:
            with pytest.raises(BrokerRefused):
                await (await producer.send("one", b"x"))
            with pytest.raises(TypeError):
                await producer.send("one", "x")
            with pytest.raises(UnknownTopic):
                await producer.send("nowhere", b"x")

    asyncio.run(main())


def test_a_broker_that_restarts_is_not_noticed(broker: FakeBroker) -> None:
    async def main() -> None:
        async with zafka.AsyncProducer(broker.address, linger_ms=0) as producer:
            deliveries = [await producer.send("one", b"%d" % number) for number in range(100)]
            await deliveries[0]
            broker.restart()
            deliveries += [await producer.send("one", b"%d" % number) for number in range(100, 200)]
            assert [(await delivery).offset for delivery in deliveries] == list(range(200))
            assert producer.metrics().connections_lost >= 1

    asyncio.run(main())
    assert values(broker, "one") == [b"%d" % number for number in range(200)]


def test_the_admin_lists_topics(broker: FakeBroker) -> None:
    async def main() -> None:
        async with zafka.AsyncAdmin(broker.address) as admin:
            assert await admin.list_topics() == ["one", "t"]
            assert [len(topic.partitions) for topic in await admin.describe_topics(["t", "one"])] == [3, 1]

    asyncio.run(main())


def test_a_change_between_the_look_and_the_pause_is_not_missed() -> None:
    async def main() -> None:
        signal = Signal()
        bridge = LoopBridge(asyncio.get_running_loop(), signal)
        looks: list[int] = []

        def look() -> int | None:
            looks.append(1)
            if len(looks) == 1:
                with signal:
                    signal.notify_all()  # after the look, before the pause
                return None
            return 1

        assert await bridge.run(until(signal, look, time.monotonic() + 30)) == 1
        assert len(looks) == 2

    asyncio.run(main())


def test_what_comes_after_the_loop_is_closed_is_ignored() -> None:
    loop = asyncio.new_event_loop()
    bridge = LoopBridge(loop)
    loop.close()
    bridge.notify()
    bridge.post(lambda: None)
