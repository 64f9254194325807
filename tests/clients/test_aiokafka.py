"""aiokafka: default settings and idempotent, every codec, reading from every kind of start."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from tests.clients.conftest import MakeTopic
from tests.clients.samples import CODECS, FIRST_TIMESTAMP_MS, STEP_MS, Sample, samples

TIMEOUT_S = 30.0


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 2 * TIMEOUT_S))


async def produce(bootstrap: str, topic: str, records: list[Sample], **settings: Any) -> list[int]:
    """Send to partition 0; returns the acknowledged offsets in order of sending."""
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, **settings) as producer:
        futures = [
            await producer.send(
                topic, record.value, record.key, partition=0, timestamp_ms=record.timestamp_ms, headers=record.headers)
            for record in records
        ]
        return [(await future).offset for future in futures]


@asynccontextmanager
async def consumer(bootstrap: str, topic: str) -> AsyncIterator[tuple[AIOKafkaConsumer, TopicPartition]]:
    reader = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False, auto_offset_reset="earliest")
    partition = TopicPartition(topic, 0)
    await reader.start()
    try:
        reader.assign([partition])
        yield reader, partition
    finally:
        await reader.stop()


async def read(reader: AIOKafkaConsumer, count: int) -> list[Any]:
    return [await asyncio.wait_for(reader.getone(), TIMEOUT_S) for _ in range(count)]


def as_sample(record: Any) -> Sample:
    return Sample(record.key, record.value, list(record.headers), record.timestamp)


@pytest.mark.parametrize("idempotent", [False, True])
@pytest.mark.parametrize("codec", CODECS)
def test_records_come_back_as_they_were_sent(
    bootstrap: str, make_topic: MakeTopic, codec: str, idempotent: bool
) -> None:
    topic = make_topic()
    sent = samples()

    async def scenario() -> None:
        offsets = await produce(
            bootstrap, topic, sent, compression_type=None if codec == "none" else codec,
            enable_idempotence=idempotent, linger_ms=20)
        assert offsets == list(range(len(sent)))
        async with consumer(bootstrap, topic) as (reader, partition):
            await reader.seek_to_beginning(partition)
            found = await read(reader, len(sent))
        assert [record.offset for record in found] == offsets
        assert [as_sample(record) for record in found] == sent

    run(scenario())


@pytest.mark.parametrize("acks", [0, 1, "all"])
def test_every_kind_of_acknowledgement(bootstrap: str, make_topic: MakeTopic, acks: int | str) -> None:
    topic = make_topic()
    sent = samples()

    async def scenario() -> None:
        async with AIOKafkaProducer(bootstrap_servers=bootstrap, acks=acks) as producer:
            for record in sent:
                await producer.send(
                    topic, record.value, record.key, 0, record.timestamp_ms, headers=record.headers)
            await producer.flush()
        async with consumer(bootstrap, topic) as (reader, _):
            assert [as_sample(record) for record in await read(reader, len(sent))] == sent

    run(scenario())


def test_reading_from_an_offset_the_end_and_a_timestamp(bootstrap: str, make_topic: MakeTopic) -> None:
    topic = make_topic()
    sent = samples()

    async def scenario() -> None:
        await produce(bootstrap, topic, sent)
        async with consumer(bootstrap, topic) as (reader, partition):
            reader.seek(partition, 7)
            assert [record.offset for record in await read(reader, 3)] == [7, 8, 9]
            assert await reader.beginning_offsets([partition]) == {partition: 0}
            assert await reader.end_offsets([partition]) == {partition: len(sent)}

            told = await reader.offsets_for_times({partition: FIRST_TIMESTAMP_MS + 3 * STEP_MS - 1})
            assert (told[partition].offset, told[partition].timestamp) == (3, sent[3].timestamp_ms)

            await reader.seek_to_end(partition)
            assert await reader.position(partition) == len(sent)
            await produce(bootstrap, topic, sent[:1])
            assert [record.offset for record in await read(reader, 1)] == [len(sent)]

            reader.seek(partition, 1000)  # out of range: auto_offset_reset takes it to the beginning
            assert (await read(reader, 1))[0].offset == 0

    run(scenario())


def test_first_use_of_a_topic_creates_it(bootstrap: str, make_topic: MakeTopic) -> None:
    topic = make_topic() + "-auto"

    async def scenario() -> None:
        assert await produce(bootstrap, topic, samples()[:1]) == [0]

    run(scenario())
