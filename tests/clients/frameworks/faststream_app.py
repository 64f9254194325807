"""FastStream: a service that turns orders into bills, and its tests' view of it. `faststream_app.py kafka|confluent`.

The same program on aiokafka and on confluent-kafka: a subscriber in a group, one that takes batches, and a publisher.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys

from faststream import FastStream

if sys.argv[1] == "kafka":
    from faststream.kafka import KafkaBroker as Broker
else:
    from faststream.confluent import KafkaBroker as Broker

ORDERS = 20
broker = Broker(os.environ["BOOTSTRAP"])
app = FastStream(broker)
bills: list[int] = []
batches: list[int] = []
done = asyncio.Event()
kind = sys.argv[1]


@broker.subscriber(f"{kind}-orders", group_id=f"{kind}-billing", auto_offset_reset="earliest")
@broker.publisher(f"{kind}-bills")
async def bill(amount: int) -> dict[str, int]:
    return {"total": amount * 2}


@broker.subscriber(f"{kind}-bills", group_id=f"{kind}-ledger", auto_offset_reset="earliest")
async def enter(bill: dict[str, int]) -> None:
    bills.append(bill["total"])
    check()


@broker.subscriber(f"{kind}-orders", group_id=f"{kind}-archive", auto_offset_reset="earliest", batch=True)
async def archive(amounts: list[int]) -> None:
    batches.extend(amounts)
    check()


def check() -> None:
    if len(bills) >= ORDERS and len(batches) >= ORDERS:
        done.set()


@app.after_startup
async def order() -> None:
    for amount in range(ORDERS):
        await broker.publish(amount, f"{kind}-orders", key=str(amount).encode())


async def main() -> None:
    running = asyncio.create_task(app.run())
    async with asyncio.timeout(60):
        await done.wait()
    app.exit()
    await running
    print(json.dumps({"bills": sorted(bills) == [2 * amount for amount in range(ORDERS)],
                      "batches": sorted(batches) == list(range(ORDERS))}))


asyncio.run(main())
