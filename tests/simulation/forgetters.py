"""Clients that delete what they committed: the offset, or all of their group.

Owns: `Forgetter`. What was answered to be deleted is nobody's any more, whatever dies afterwards, until it commits again.
Violations name themselves: offset-undeleted (it is told what it had deleted), and those of `committers.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.simulation.committers import NOTHING, Committer
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages.delete_groups import DeleteGroupsRequest
from zafka.transport.kafka.messages.offset_delete import (
    OffsetDeleteRequest,
    OffsetDeleteRequestPartition,
    OffsetDeleteRequestTopic,
)

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation

OFFSET_DELETE_VERSION, DELETE_GROUPS_VERSION = 0, 2


class Forgetter(Committer):
    """gone: the last offset of those that are deleted for good."""

    def __init__(self, simulation: Simulation, name: str, topic: str, commits: int, pause_s: float) -> None:
        super().__init__(simulation, name, topic, commits, pause_s)
        self.gone = NOTHING

    def _next(self) -> None:
        if self.commits > 0 and self.random.random() < 0.3:
            self._delete()
        else:
            super()._next()

    def _delete(self) -> None:
        """Until it is answered. An attempt that was not may have deleted it, too."""
        held, self.held = self.held, NOTHING

        def on_error(error: int) -> None:
            if error == ErrorCode.GROUP_ID_NOT_FOUND and held != NOTHING:
                self.violate("offset-back", f"there is no such group, and {held} was committed")
            elif error and error != ErrorCode.GROUP_ID_NOT_FOUND:
                self.check_retriable(error)
                self.again(self._delete)
                return
            self.engine.counts["offsets deleted"] += 1
            self.gone = self.sent
            self._pause()

        if self.random.random() < 0.5:
            self._delete_offset(on_error)
        else:
            self._delete_group(on_error)

    def _delete_offset(self, on_error: Any) -> None:
        topics = [OffsetDeleteRequestTopic(self.topic, [OffsetDeleteRequestPartition(0)])]

        def on_answer(answer: Any) -> None:
            on_error(answer.error_code or answer.topics[0].partitions[0].error_code)

        self.ask_coordinator(
            ApiKey.OFFSET_DELETE, OFFSET_DELETE_VERSION, OffsetDeleteRequest(self.group, topics), on_answer, self._delete)

    def _delete_group(self, on_error: Any) -> None:
        def on_answer(answer: Any) -> None:
            on_error(answer.results[0].error_code)

        self.ask_coordinator(
            ApiKey.DELETE_GROUPS, DELETE_GROUPS_VERSION, DeleteGroupsRequest([self.group]), on_answer, self._delete)

    def check_found(self, offset: int) -> None:
        if NOTHING < offset <= self.gone:
            self.violate("offset-undeleted", f"{offset} is committed, and all up to {self.gone} was deleted")
        super().check_found(offset)
