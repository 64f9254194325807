"""A member of a group as a process of its own: it reads, commits, and tells what happens to it, until its input ends.

    python -m tests.faults.groups.member '{"kind": "confluent", "bootstrap": …, "topic": …, "group": …, "settings": {…}}'

Owns: one consumer. It commits now and then, and all that it has read before it lets go of a partition; what is told is
written before anything else happens, and that it wants to commit before it tries, so that a crash hides nothing that
others could see. What it may be told while coordinators die is tried again; anything else ends it with an error, which
its parent sees.
"""

from __future__ import annotations

import itertools
import json
import operator
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from tests.faults.groups import events

COMMIT_EVERY_S = 0.3
PATIENCE_S = 60.0
POLL_S = 0.1
RETRY_S = 0.02
RECORDS_MAX = 200

Records = list[tuple[int, int]]  # partition and offset, in the order in which they came


class CommitRefused(Exception):
    """is_final: what it would commit is no longer this member's."""

    def __init__(self, why: str, *, is_final: bool) -> None:
        self.is_final = is_final
        super().__init__(why)


class Listener(Protocol):
    """What a consumer tells while it polls or closes: before it gives anything up, all that it took."""

    def took(self, records: Records) -> None: ...

    def on_assigned(self, partitions: Iterable[int], generation: int) -> None: ...

    def on_revoked(self, partitions: Iterable[int]) -> None: ...

    def on_lost(self, partitions: Iterable[int]) -> None: ...


class Client(Protocol):
    def poll(self) -> Records: ...

    def commit(self, offsets: dict[int, int]) -> None:
        """Raises CommitRefused."""

    def close(self) -> None: ...


class Member:
    """positions: offset after what was read of each partition that it has. committed: what was acknowledged of them."""

    def __init__(self, connect: Callable[[Listener], Client]) -> None:
        self.positions: dict[int, int] = {}
        self.committed: dict[int, int] = {}
        self.client = connect(self)

    def run(self, must_leave: threading.Event) -> None:
        next_s = 0.0
        while not must_leave.is_set():
            self.took(self.client.poll())
            if time.monotonic() >= next_s:
                self.commit(self.positions, is_last=False)
                next_s = time.monotonic() + COMMIT_EVERY_S
        self.client.close()
        tell(events.CLOSED)

    def took(self, records: Records) -> None:
        runs = []
        first = operator.itemgetter(0)
        for partition, group in itertools.groupby(sorted(records, key=first), key=first):
            offsets = [offset for _, offset in group]
            # One line for each run without a gap, so that a gap is seen.
            starts = [0, *(at for at in range(1, len(offsets)) if offsets[at] != offsets[at - 1] + 1), len(offsets)]
            runs += [{**where(partition), "minOffset": offsets[begin], "maxOffset": offsets[end - 1]}
                     for begin, end in itertools.pairwise(starts)]
            self.positions[partition] = offsets[-1] + 1
        if runs:
            tell(events.CONSUMED, count=len(records), partitions=runs)

    def commit(self, partitions: Iterable[int], *, is_last: bool) -> None:
        """is_last: they are given up when it returns, so it is tried until it is known what became of it."""
        offsets = {
            partition: self.positions[partition] for partition in partitions
            if self.positions.get(partition) not in (None, self.committed.get(partition))}
        deadline_s = time.monotonic() + PATIENCE_S
        while offsets:
            told = [{**where(partition), "offset": offset} for partition, offset in offsets.items()]
            tell(events.WANTED, offsets=told)
            try:
                self.client.commit(offsets)
            except CommitRefused as refused:
                if refused.is_final or not is_last or time.monotonic() > deadline_s:
                    tell(events.COMMITTED, offsets=told, success=False, error=str(refused))
                    return
                threading.Event().wait(RETRY_S)
            else:
                tell(events.COMMITTED, offsets=told, success=True)
                self.committed |= offsets
                return

    # -- told by the client ----------------------------------------------------------------------

    def on_assigned(self, partitions: Iterable[int], generation: int) -> None:
        tell(events.ASSIGNED, partitions=list(map(where, partitions)), generation=generation)

    def on_revoked(self, partitions: Iterable[int]) -> None:
        self.commit(partitions, is_last=True)
        self._forget(events.REVOKED, partitions)

    def on_lost(self, partitions: Iterable[int]) -> None:
        self._forget(events.LOST, partitions)

    def _forget(self, how: str, partitions: Iterable[int]) -> None:
        for partition in partitions:
            self.positions.pop(partition, None)
            self.committed.pop(partition, None)
        tell(how, partitions=list(map(where, partitions)))


def where(partition: int) -> dict[str, Any]:
    return {"topic": TASK["topic"], "partition": partition}


def tell(name: str, **what: Any) -> None:
    print(json.dumps({"timestamp": time.time_ns() / 1e6, "name": name, **what}), flush=True)


# -- the two clients -------------------------------------------------------------------------------


def confluent(listener: Listener) -> Client:
    """librdkafka: classic with any of its assignors, or KIP-848, as the settings say."""
    import confluent_kafka
    from confluent_kafka import KafkaError, KafkaException, TopicPartition

    settings = TASK["settings"]
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

    class Confluent:
        def __init__(self) -> None:
            self.consumer = confluent_kafka.Consumer({
                "bootstrap.servers": TASK["bootstrap"], "group.id": TASK["group"], "auto.offset.reset": "earliest",
                "enable.auto.commit": False, "fetch.wait.max.ms": 100, "log_level": 2, **settings})
            self.consumer.subscribe([TASK["topic"]], on_assign=on_assign, on_revoke=on_revoke, on_lost=on_lost)

        def poll(self) -> Records:
            wait_s = POLL_S
            while len(taken) < RECORDS_MAX and (message := self.consumer.poll(wait_s)) is not None:
                wait_s = 0.0
                error = message.error()
                if error is None:
                    partition, offset = message.partition(), message.offset()
                    assert partition is not None and offset is not None
                    taken.append((partition, offset))
                elif error.code() not in passing:
                    raise KafkaException(error)
            records = taken.copy()
            taken.clear()
            return records

        def commit(self, offsets: dict[int, int]) -> None:
            wanted = [TopicPartition(TASK["topic"], partition, offset) for partition, offset in offsets.items()]
            try:
                answered = self.consumer.commit(offsets=wanted, asynchronous=False)
            except KafkaException as failed:
                raise CommitRefused(str(failed.args[0]), is_final=failed.args[0].code() not in again) from failed
            for each in answered or ():
                if each.error is not None:
                    raise CommitRefused(str(each.error), is_final=each.error.code() not in again)

        def close(self) -> None:
            self.consumer.close()

    return Confluent()


def generation_of(consumer: Any) -> int:
    """librdkafka tells it only in what it writes of a group's metadata: 7 bytes of magic, then the generation."""
    [generation] = struct.unpack_from("<i", consumer.consumer_group_metadata(), len(b"CGMDv2:"))
    return int(generation)


def ours(listener: Listener) -> Client:
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
                TASK["topic"], bootstrap_servers=TASK["bootstrap"], group_id=TASK["group"], auto_offset_reset="earliest",
                enable_auto_commit=False, fetch_max_wait=0.1, on_rebalance=on_rebalance, **TASK["settings"])

        def poll(self) -> Records:
            return [(each.partition, each.offset) for each in self.consumer.poll(POLL_S, max_records=RECORDS_MAX)]

        def commit(self, offsets: dict[int, int]) -> None:
            try:
                self.consumer.commit({(TASK["topic"], partition): offset for partition, offset in offsets.items()})
            except ZafkaError as failed:
                raise CommitRefused(str(failed), is_final=isinstance(failed, CommitFailed)) from failed

        def close(self) -> None:
            self.consumer.close()

    return Ours()


CLIENTS = {"confluent": confluent, "ours": ours}
TASK: dict[str, Any] = {}


def main() -> int:
    TASK.update(json.loads(sys.argv[1]))
    must_leave = threading.Event()

    def listen() -> None:
        sys.stdin.buffer.read()
        must_leave.set()

    threading.Thread(target=listen, daemon=True).start()
    Member(CLIENTS[TASK["kind"]]).run(must_leave)
    return 0


if __name__ == "__main__":
    sys.exit(main())
