"""`zafka.Consumer`: records out of partitions, in order, by iteration or in batches.

Owns: the blocking face of `consumer_base.ConsumerBase`. Not safe to use from several threads at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Literal, Self, overload

from zafka.client.consumer_base import ConsumerBase
from zafka.client.group_requests import offsets_of
from zafka.client.offsets import EARLIEST, LATEST
from zafka.client.records import OffsetAndMetadata, OffsetAndTimestamp, Offsets, Partitions, Record, TopicPartition
from zafka.client.waiting import run


class Consumer(ConsumerBase):
    __doc__ = ConsumerBase.__doc__

    def _begin(self) -> None:
        run(self._start())

    def subscribe(self, *topics: str, pattern: str | None = None) -> None:
        """Read all partitions of these topics, instead of what was read before. Raises UnknownTopic.

        pattern: instead of topics, a regular expression (RE2's) that whole names match, also of topics that come later; the
            broker looks, so only in groups of KIP-848's protocol. One that is none makes `poll` raise BrokerRefused.
        """
        run(self._subscribe(topics, pattern))

    def assign(self, partitions: Partitions) -> None:
        """Read exactly these partitions, instead of what was read before. Raises UnknownTopic."""
        run(self._assign(partitions))

    def topics(self) -> set[str]:
        """All topics that the brokers have, internal ones left out."""
        return run(self._all_topics())

    def partitions_for_topic(self, topic: str) -> set[int]:
        """The partitions that a topic has. Raises UnknownTopic."""
        return run(self._partitions_for_topic(topic))

    def position(self, partition: TopicPartition | tuple[str, int], timeout: float | None = None) -> int:
        """The offset of the next record that this consumer hands out from an assigned partition.

        Waits until it is known where to begin, at most `timeout` (by default `api_timeout`) seconds.
        """
        return run(self._position(partition, timeout))

    def beginning_offsets(self, partitions: Partitions, timeout: float | None = None) -> dict[TopicPartition, int]:
        """The first offset that each partition has. They need not be assigned."""
        return run(self._offsets_at(partitions, EARLIEST, timeout))

    def end_offsets(self, partitions: Partitions, timeout: float | None = None) -> dict[TopicPartition, int]:
        """The offset that the next record of each partition will get. They need not be assigned."""
        return run(self._offsets_at(partitions, LATEST, timeout))

    def offsets_for_times(
        self, timestamps_ms: Mapping[TopicPartition | tuple[str, int], int], timeout: float | None = None
    ) -> dict[TopicPartition, OffsetAndTimestamp | None]:
        """The first record at or after a time, for each partition; None if there is none that late."""
        return run(self._offsets_for_times(timestamps_ms, timeout))

    def commit(
        self,
        offsets: Offsets | None = None,
        *,
        wait: bool = True,
        timeout: float | None = None,
    ) -> None:
        """Commit offsets for the group: those after what was handed out, or explicit ones (of the next record to read; as
        OffsetAndMetadata with a text beside them).

        On disk when this returns, unless `wait` is False: then it is on its way, and a later commit follows it.
        Raises CommitFailed when others have the partitions by now; BrokerRefused, RequestTimedOut.
        """
        run(self._commit(offsets, wait, timeout))

    @overload
    def committed(
        self, partitions: Partitions | None = None, timeout: float | None = None, *, metadata: Literal[False] = False
    ) -> dict[TopicPartition, int | None]: ...

    @overload
    def committed(
        self, partitions: Partitions | None = None, timeout: float | None = None, *, metadata: Literal[True]
    ) -> dict[TopicPartition, OffsetAndMetadata | None]: ...

    def committed(
        self, partitions: Partitions | None = None, timeout: float | None = None, *, metadata: bool = False
    ) -> dict[TopicPartition, int | None] | dict[TopicPartition, OffsetAndMetadata | None]:
        """The offsets that the group has committed, of these partitions or of those assigned; None where there is none.

        metadata: with the text that was committed beside each, as OffsetAndMetadata.
        """
        found = run(self._committed(partitions, timeout))
        return found if metadata else offsets_of(found)

    # -- reading ---------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Record]:
        """Records as they come, without end."""
        return self.records()

    def records(self, timeout: float | None = None) -> Iterator[Record]:
        """Records as they come; ends when nothing came for `timeout` seconds, never by default."""
        fetcher = self._fetcher
        while True:
            rest = self._rest
            for record in rest:
                yield record
                if fetcher.interrupted:  # and the record before this is worked on
                    run(self._attend())
                if self._rest is not rest:
                    break  # the user moved: what was decoded is not next any more
            else:
                if not run(self._advance(timeout)):
                    return

    def poll(self, timeout: float = 0.0, max_records: int = 500) -> list[Record]:
        """Records that are there; waits at most `timeout` seconds for the first, then returns []."""
        return run(self._poll(timeout, max_records))

    def batches(self, max_records: int = 500, timeout: float | None = None) -> Iterator[list[Record]]:
        """Lists of at most `max_records` records; ends when nothing came for `timeout` seconds, never by default."""
        while records := self.poll(math.inf if timeout is None else timeout, max_records):
            yield records

    # -- the end ---------------------------------------------------------------------------------

    def close(self) -> None:
        """End the I/O thread. Closing again does nothing."""
        run(self._close())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
