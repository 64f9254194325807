"""librdkafka and our own client as a member uses them: they call back while they poll or close.

Owns: how each is made, polled, committed with and closed.
"""

from __future__ import annotations

import struct
from typing import Any

from tests.faults.groups.client import (
    POLL_S,
    RECORDS_MAX,
    START_S,
    Client,
    ClientEnded,
    CommitRefused,
    Listener,
    Records,
    Task,
)

# What a KIP-848 member that was put out is told, as by Kafka, when its group has become a classic one since.
GONE = "The group id does not exist"


def confluent(listener: Listener, task: Task) -> Client:
    """librdkafka: classic with any of its assignors, or KIP-848, as the settings say."""
    import confluent_kafka
    from confluent_kafka import KafkaError, KafkaException, TopicPartition

    settings = task.settings
    is_incremental = (
        settings.get("group.protocol") == "consumer" or "cooperative" in settings.get("partition.assignment.strategy", ""))
    # What a coordinator that is gone, or just back, makes of a request; and a rebalance that is not over.
    again = {
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS, KafkaError.COORDINATOR_NOT_AVAILABLE, KafkaError.NOT_COORDINATOR,
        KafkaError.REBALANCE_IN_PROGRESS, KafkaError.REQUEST_TIMED_OUT, KafkaError.STALE_MEMBER_EPOCH,
        KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._TIMED_OUT_QUEUE, KafkaError._WAIT_COORD,
        KafkaError._ALL_BROKERS_DOWN, KafkaError._DESTROY}
    # What librdkafka reports while it connects again, and does by itself.
    passing = {*again, KafkaError._RESOLVE, KafkaError._MAX_POLL_EXCEEDED}

    def numbers(partitions: list[TopicPartition]) -> list[int]:
        return [each.partition for each in partitions]

    def on_assign(consumer: confluent_kafka.Consumer, partitions: list[TopicPartition]) -> None:
        listener.on_assigned(numbers(partitions), generation_of(consumer))
        (consumer.incremental_assign if is_incremental else consumer.assign)(partitions)

    taken: Records = []  # by the poll that is on its way, which may call back

    def let_go(consumer: confluent_kafka.Consumer, partitions: list[TopicPartition]) -> None:
        consumer.incremental_unassign(partitions) if is_incremental else consumer.unassign()

    def on_revoke(consumer: confluent_kafka.Consumer, partitions: list[TopicPartition]) -> None:
        listener.took(taken)
        taken.clear()
        listener.on_revoked(numbers(partitions))
        let_go(consumer, partitions)

    def on_lost(consumer: confluent_kafka.Consumer, partitions: list[TopicPartition]) -> None:
        listener.took(taken)
        taken.clear()
        listener.on_lost(numbers(partitions))
        let_go(consumer, partitions)

    def refused(error: KafkaError) -> CommitRefused:
        return CommitRefused(str(error), is_final=error.code() not in again)

    class Confluent:
        def __init__(self) -> None:
            self.consumer = confluent_kafka.Consumer({
                "bootstrap.servers": task.bootstrap, "group.id": task.group, "auto.offset.reset": "earliest",
                "enable.auto.commit": False, "fetch.wait.max.ms": 100, "log_level": 2, **settings})
            self.consumer.subscribe([task.topic], on_assign=on_assign, on_revoke=on_revoke, on_lost=on_lost)

        def poll(self) -> Records:
            wait_s = POLL_S
            while len(taken) < RECORDS_MAX and (message := self.consumer.poll(wait_s)) is not None:
                wait_s = 0.0
                error = message.error()
                if error is None:
                    partition, offset = message.partition(), message.offset()
                    assert partition is not None and offset is not None
                    taken.append((partition, offset))
                elif error.fatal() and GONE in error.str():
                    raise ClientEnded(error.str())
                elif error.code() not in passing:
                    raise KafkaException(error)
            records = taken.copy()
            taken.clear()
            return records

        def commit(self, offsets: dict[int, int]) -> None:
            wanted = [TopicPartition(task.topic, partition, offset) for partition, offset in offsets.items()]
            try:
                answered = self.consumer.commit(offsets=wanted, asynchronous=False)
            except KafkaException as failed:
                raise refused(failed.args[0]) from failed
            for each in answered or ():
                if each.error is not None:
                    raise refused(each.error)

        def close(self) -> None:
            self.consumer.close()

        def state(self) -> str:
            return f"assigned {numbers(self.consumer.assignment())}, generation {generation_of(self.consumer)}"

    return Confluent()


def generation_of(consumer: Any) -> int:
    """librdkafka tells it only in what it writes of a group's metadata: 7 bytes of magic, then the generation."""
    [generation] = struct.unpack_from("<i", consumer.consumer_group_metadata(), len(b"CGMDv2:"))
    return int(generation)


def ours(listener: Listener, task: Task) -> Client:
    import zafka
    from zafka.client.errors import CommitFailed, ZafkaError
    from zafka.client.membership import Rebalance

    def on_rebalance(event: Rebalance) -> None:
        for partitions, told in ((event.lost, listener.on_lost), (event.revoked, listener.on_revoked)):
            if partitions:
                told([each.partition for each in partitions])
        if event.assigned:
            listener.on_assigned([each.partition for each in event.assigned], event.generation)

    class Ours:
        def __init__(self) -> None:
            self.consumer = zafka.Consumer(
                task.topic, bootstrap_servers=task.bootstrap, group_id=task.group, auto_offset_reset="earliest",
                enable_auto_commit=False, fetch_max_wait=0.1, on_rebalance=on_rebalance,
                **{"bootstrap_timeout": START_S, **task.settings})

        def poll(self) -> Records:
            return [(each.partition, each.offset) for each in self.consumer.poll(POLL_S, max_records=RECORDS_MAX)]

        def commit(self, offsets: dict[int, int]) -> None:
            try:
                self.consumer.commit({(task.topic, partition): offset for partition, offset in offsets.items()})
            except ZafkaError as failed:
                raise CommitRefused(str(failed), is_final=isinstance(failed, CommitFailed)) from failed

        def close(self) -> None:
            self.consumer.close()

        def state(self) -> str:
            return repr(self.consumer)

    return Ours()
