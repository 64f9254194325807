"""kafka-python and aiokafka as a member uses them: both call back in an event loop, where nothing may block.

Owns: how each is made, polled, committed with and closed; and the bridge: `bridged` runs a member's plain code inside of a
coroutine, and `wait` in it awaits something there, so that a member that gives up a partition commits first, as the others do.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Any

import greenlet

from tests.faults.groups.client import POLL_S, RECORDS_MAX, START_S, Client, CommitRefused, Listener, Records, Task

AGAIN_S = 0.1


async def bridged(plain: Callable[[], None]) -> None:
    """plain: may `wait`, and blocks nobody while it does."""
    runs = greenlet.greenlet(plain)
    awaited = runs.switch()
    while not runs.dead:
        try:
            result = await awaited
        except (Exception, asyncio.CancelledError) as failed:  # noqa: BLE001  (whatever it is, it is for who waits)
            awaited = runs.throw(failed)
        else:
            awaited = runs.switch(result)


def is_bridged() -> bool:
    return greenlet.getcurrent().parent is not None


def wait(awaitable: Awaitable[Any]) -> Any:
    here = greenlet.getcurrent().parent
    assert here is not None
    return here.switch(awaitable)


def kafka_python(listener: Listener, task: Task) -> Client:
    """Its callbacks run in a thread of the client's, in which its loop is, while `poll` waits for them."""
    from kafka import KafkaConsumer, TopicPartition
    from kafka.consumer.subscription_state import AsyncConsumerRebalanceListener
    from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
    from kafka.coordinator.assignors.range import RangePartitionAssignor
    from kafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
    from kafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
    from kafka.errors import CommitFailedError, KafkaTimeoutError, RebalanceInProgressError, RetriableError
    from kafka.structs import OffsetAndMetadata

    assignors = {each.name: each for each in (
        RangePartitionAssignor, RoundRobinPartitionAssignor, StickyPartitionAssignor, CooperativeStickyAssignor)}
    settings = dict(task.settings)
    consumer = KafkaConsumer(
        bootstrap_servers=task.bootstrap, group_id=task.group, auto_offset_reset="earliest", enable_auto_commit=False,
        fetch_max_wait_ms=100, bootstrap_timeout_ms=int(START_S * 1000),
        partition_assignment_strategy=[assignors[settings.pop("assignor")]], **settings)

    class Rebalances(AsyncConsumerRebalanceListener):  # type: ignore[misc]
        async def on_partitions_assigned(self, places: Any) -> None:
            listener.on_assigned(numbers(places), consumer.group_metadata().generation_id)

        async def on_partitions_revoked(self, places: Any) -> None:
            await bridged(lambda: listener.on_revoked(numbers(places)))

        async def on_partitions_lost(self, places: Any) -> None:
            listener.on_lost(numbers(places))

    class KafkaPython:
        def __init__(self) -> None:
            consumer.subscribe([task.topic], listener=Rebalances())

        def poll(self) -> Records:
            polled = consumer.poll(int(POLL_S * 1000), max_records=RECORDS_MAX)
            return [(place.partition, each.offset) for place, records in polled.items() for each in records]

        def commit(self, offsets: dict[int, int]) -> None:
            wanted = {TopicPartition(task.topic, partition): OffsetAndMetadata(offset, "", -1)
                      for partition, offset in offsets.items()}
            try:
                if is_bridged():
                    # What `commit` does; `commit_async` says that it is done when it has found the coordinator.
                    wait(consumer._coordinator._commit_offsets_sync_async(wanted))
                else:
                    consumer.commit(wanted)
            except (CommitFailedError, RebalanceInProgressError, RetriableError, KafkaTimeoutError) as failed:
                raise CommitRefused(str(failed), is_final=isinstance(failed, CommitFailedError)) from failed

        def close(self) -> None:
            consumer.close()

        def state(self) -> str:
            coordinator = consumer._coordinator
            connections = [
                f"{connection} {len(connection.in_flight_requests)} in flight, {len(connection._request_buffer)} not sent"
                for connection in list(coordinator._manager._conns.values())]
            joins = coordinator._join_task
            return (f"{coordinator.state} {coordinator._generation} at {coordinator.coordinator_id}, rejoins {coordinator.rejoin_needed}, "
                    f"joins {joins is not None and not joins.is_done}, heartbeats {coordinator._heartbeat_enabled}; {connections}")

    return KafkaPython()


def aiokafka(listener: Listener, task: Task) -> Client:
    """The member itself is bridged: all of it runs in the client's loop, and callbacks beside it.

    It does not tell lost partitions from revoked ones, nor tell any when it is closed.
    """
    from aiokafka import AIOKafkaConsumer, TopicPartition
    from aiokafka.abc import ConsumerRebalanceListener
    from aiokafka.coordinator.assignors.range import RangePartitionAssignor
    from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
    from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
    from aiokafka.errors import CommitFailedError, KafkaConnectionError, KafkaError

    assignors = {each.name: each for each in (RangePartitionAssignor, RoundRobinPartitionAssignor, StickyPartitionAssignor)}
    settings = dict(task.settings)
    consumer = AIOKafkaConsumer(
        bootstrap_servers=task.bootstrap, group_id=task.group, auto_offset_reset="earliest", enable_auto_commit=False,
        fetch_max_wait_ms=100, partition_assignment_strategy=[assignors[settings.pop("assignor")]], **settings)

    class AioKafka(ConsumerRebalanceListener):  # type: ignore[misc]
        """owned: what it was told to have and has not given up. failed: what went wrong in a callback, which nobody else tells."""

        def __init__(self) -> None:
            self.owned: list[int] = []
            self.failed: BaseException | None = None
            consumer.subscribe([task.topic], listener=self)
            self._start()

        def _start(self) -> None:
            """It asks each address once, and fails where the broker is killed just then: who wants to live on starts it again."""
            deadline_s = time.monotonic() + START_S
            while True:
                try:
                    return wait(consumer.start())
                except KafkaConnectionError:
                    if time.monotonic() > deadline_s:
                        raise
                except KafkaError as failed:
                    if "RebalanceInProgress" not in str(failed):
                        raise
                    return None  # it has started, and was to wait for its partitions: as in `poll`
                wait(asyncio.sleep(AGAIN_S))

        async def on_partitions_assigned(self, places: Any) -> None:
            self.owned = numbers(places)
            listener.on_assigned(self.owned, consumer._coordinator.generation)

        async def on_partitions_revoked(self, _: Any) -> None:
            try:
                await bridged(self._give_up)
            except BaseException as failed:
                self.failed = failed
                raise

        def _give_up(self) -> None:
            owned, self.owned = self.owned, []
            (listener.on_revoked if consumer._coordinator.generation > 0 else listener.on_lost)(owned)

        def poll(self) -> Records:
            if self.failed is not None:
                raise self.failed
            try:
                polled = wait(consumer.getmany(timeout_ms=int(POLL_S * 1000), max_records=RECORDS_MAX))
            except KafkaError as failed:
                if "RebalanceInProgress" not in str(failed):
                    raise
                return []  # it asked for offsets in between, tells its user so, and goes on
            return [(place.partition, each.offset) for place, records in polled.items() for each in records]

        def commit(self, offsets: dict[int, int]) -> None:
            try:
                wait(consumer.commit({TopicPartition(task.topic, partition): offset for partition, offset in offsets.items()}))
            except CommitFailedError as failed:
                raise CommitRefused(str(failed), is_final=True) from failed

        def close(self) -> None:
            self._give_up()
            with contextlib.suppress(asyncio.CancelledError):  # of its fetcher, where that was waiting to ask again
                wait(consumer.stop())

        def state(self) -> str:
            coordinator = consumer._coordinator
            frames = [task.get_stack(limit=1) for task in asyncio.all_tasks(consumer._loop)]
            return (f"generation {coordinator.generation} at {coordinator.coordinator_id}, "
                    f"rejoins {coordinator._rejoin_needed_fut.done()}; waits in {frames}")

    return AioKafka()


def numbers(places: Any) -> list[int]:
    return sorted(place.partition for place in places)
