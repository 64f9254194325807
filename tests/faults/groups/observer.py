"""Somebody who asks what a group has committed, and is no member of it.

Owns: a consumer of librdkafka. What it is told goes to the group's `Team`, with the time at which it asked.
"""

from __future__ import annotations

import contextlib
import time

from confluent_kafka import Consumer, KafkaException, TopicPartition

from tests.faults.groups.team import Team


class Observer:
    """asked: how often it was told. patience_s: how long it waits for an answer."""

    def __init__(self, bootstrap: str, team: Team, *, patience_s: float) -> None:
        self.asked = 0
        self._team = team
        self._patience_s = patience_s
        # When its only broker is gone, librdkafka (2.16) begins anew, and then waits in vain for the coordinator that it knew.
        # Not its admin client: it trips over an answer that comes when nobody waits for it any more (an assertion ends us).
        self._consumer = Consumer({
            "bootstrap.servers": bootstrap, "group.id": team.group, "enable.auto.commit": False, "log_level": 2,
            "metadata.recovery.strategy": "none", "socket.timeout.ms": 5000, "reconnect.backoff.max.ms": 200})

    def ask(self) -> dict[int, int] | None:
        """By partition, what is committed; None if nobody could say."""
        asked_ms = time.time_ns() / 1e6
        with contextlib.suppress(KafkaException):  # a coordinator that was just killed
            told = self._consumer.committed(
                [TopicPartition(self._team.topic, partition) for partition in range(self._team.partitions)], timeout=self._patience_s)
            if not any(each.error for each in told):
                committed = {each.partition: max(each.offset, 0) for each in told}
                self._team.observed(asked_ms, committed)
                self.asked += 1
                return committed
        return None

    def close(self) -> None:
        self._consumer.close()
