"""Send and read with asyncio. Needs a broker: `zafka up` in another terminal; python examples/async_client.py [ADDRESS]"""

import asyncio
import sys

import zafka
from zafka.client.errors import BrokerRefused


async def ask(producer: zafka.AsyncProducer, number: int) -> int:
    delivery = await producer.send("async", b"from task %d" % number)  # queued; waits only if the buffer is full
    where = await delivery  # acknowledged, and on disk
    return where.offset


async def main(where: str | None) -> None:
    async with zafka.AsyncAdmin(where) as admin:
        try:
            await admin.create_topic("async", partitions=1)
        except BrokerRefused as refused:
            print(refused)  # it is there from the last time
    async with zafka.AsyncProducer(where) as producer:
        offsets = await asyncio.gather(*(ask(producer, number) for number in range(100)))
        print(len(offsets), "records in", producer.metrics().batches, "batches")
        spans = await (await producer.send_many("async", [b"line %d" % number for number in range(1000)]))
        print("and", sum(span.record_count for span in spans), "more")
    async with zafka.AsyncConsumer("async", bootstrap_servers=where, auto_offset_reset="earliest") as consumer:
        async for record in consumer:
            print("first:", record.value)
            break
        async for batch in consumer.batches(max_records=500, timeout=0.5):
            print(len(batch), "records up to offset", batch[-1].offset)


asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else None))
