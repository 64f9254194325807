"""Clients that commit offsets for a group without members, ever higher ones, and look what is committed.

Owns: `Committer`, and `Witness`, which looks once more at the end. A commit that was answered holds, whatever dies
afterwards; one that was not may hold or not, but not come later: what is found never goes back.
Violations name themselves: offset-back (invariant 12), offset-phantom (nobody committed it), refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tests.simulation.clients import BACKOFF_S, Client
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages.find_coordinator import FindCoordinatorRequest
from zafka.transport.kafka.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from zafka.transport.kafka.messages.offset_fetch import (
    OffsetFetchRequest,
    OffsetFetchRequestGroup,
    OffsetFetchRequestTopics,
)

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation

COMMIT_VERSION, FETCH_VERSION, FIND_VERSION = 8, 8, 4
NOTHING = -1


class GroupClient(Client):
    """A client of one group, which finds its coordinator."""

    def __init__(self, simulation: Simulation, name: str, group: str, topic: str) -> None:
        super().__init__(simulation, name)
        self.group = group
        self.topic = topic
        self._coordinator: int | None = None

    def again(self, step: Callable[[], None]) -> None:
        """After a while, perhaps elsewhere."""
        self._coordinator = None
        self.after(BACKOFF_S * (1 + self.random.random()), step)

    def ask_coordinator(
        self, api: ApiKey, version: int, request: Any, on_answer: Callable[[Any], None], step: Callable[[], None]
    ) -> None:
        """Send it, or find out whom to send it to; `step` is tried again where that fails."""
        if self._coordinator is not None:
            self.ask(self._coordinator, api, version, request, on_answer, lambda: self.again(step))
            return

        def on_found(answer: Any) -> None:
            (found,) = answer.coordinators
            if found.error_code:
                self.check_retriable(found.error_code)
                self.again(step)
            else:
                self._coordinator = found.node_id
                step()

        self.ask(self.any_broker(), ApiKey.FIND_COORDINATOR, FIND_VERSION,
                 FindCoordinatorRequest(coordinator_keys=[self.group]), on_found, lambda: self.again(step))

    def check_retriable(self, error: int) -> None:
        if not ErrorCode(error).is_retriable:
            self.violate("refused", ErrorCode(error).name)

    def fetch(self, on_found: Callable[[int], None], step: Callable[[], None]) -> None:
        """What is committed, for partition 0."""
        wanted = [OffsetFetchRequestTopics(name=self.topic, partition_indexes=[0])]

        def on_answer(answer: Any) -> None:
            (group,) = answer.groups
            if group.error_code:
                self.check_retriable(group.error_code)
                self.again(step)
            else:
                on_found(group.topics[0].partitions[0].committed_offset)

        request = OffsetFetchRequest([OffsetFetchRequestGroup(self.group, topics=wanted)])
        self.ask_coordinator(ApiKey.OFFSET_FETCH, FETCH_VERSION, request, on_answer, step)


class Committer(GroupClient):
    """The only one that commits for its group. sent: the last offset that it sent. held: the last that surely holds."""

    def __init__(self, simulation: Simulation, name: str, topic: str, commits: int, pause_s: float) -> None:
        super().__init__(simulation, name, f"group of {name}", topic)
        self.commits = commits
        self.pause_s = pause_s
        self.sent = NOTHING
        self.held = NOTHING

    def start(self) -> None:
        self.after(self.pause_s * self.random.random(), self._next)

    def _next(self) -> None:
        if self.commits <= 0:
            self.done = True
        elif self.random.random() < 0.3:
            self._look()
        else:
            self._commit()

    def _pause(self) -> None:
        self.after(self.pause_s * self.random.random(), self._next)

    def _commit(self) -> None:
        self.sent += 1 + self.random.randrange(3)
        offset = self.sent
        part = OffsetCommitRequestPartition(0, offset, -1, "x" * self.random.randrange(60))
        request = OffsetCommitRequest(self.group, topics=[OffsetCommitRequestTopic(name=self.topic, partitions=[part])])

        def on_answer(answer: Any) -> None:
            error = answer.topics[0].partitions[0].error_code
            if error:
                self.check_retriable(error)
                self.again(self._commit)
                return
            self.engine.counts["offsets committed"] += 1
            self.held = offset
            self.commits -= 1
            self._pause()

        self.ask_coordinator(ApiKey.OFFSET_COMMIT, COMMIT_VERSION, request, on_answer, self._commit)

    def _look(self) -> None:
        self.fetch(self._on_found, self._look)

    def _on_found(self, offset: int) -> None:
        self.check_found(offset)
        self._pause()

    def check_found(self, offset: int) -> None:
        """What was found holds from now on, also if its commit was not answered."""
        if offset < self.held:
            self.violate("offset-back", f"{offset} is committed, after {self.held} was")
        elif offset > self.sent:
            self.violate("offset-phantom", f"{offset} is committed, and {self.sent} was the last that was sent")
        self.held = max(self.held, offset)


class Witness(GroupClient):
    """Looks once more, when all is over."""

    def __init__(self, simulation: Simulation, name: str, committer: Committer) -> None:
        super().__init__(simulation, name, committer.group, committer.topic)
        self._committer = committer

    def start(self) -> None:
        self.fetch(self._on_found, self.start)

    def _on_found(self, offset: int) -> None:
        self._committer.check_found(offset)
        self.done = True
