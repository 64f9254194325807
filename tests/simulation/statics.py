"""Static members: processes that come back under the name of the one before, and have its share if it still had it.

Owns: `StaticMember`, the processes of one name, one after the other; whoever dies leaves one behind that commits yet.
Violations name themselves: fenced-commit (of a process whose name another has: from when that one has its share, because a
coordinator that dies before forgets it, as Kafka's does), fenced-instance (a process is told that another has its name, and none
has), static-share (who came anew in a generation was given something else), two-owners and the others as in `members.py`.
Source: KIP-345.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.simulation.members import Group, GroupMember
from zafka.transport.kafka.errors import ErrorCode

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation


class StaticMember(GroupMember):
    """had_share: this process was given one, under the id that it has. former: id and generation of the last one that was given one."""

    def __init__(self, simulation: Simulation, name: str, group: Group) -> None:
        super().__init__(simulation, name, group)
        self.instance = name
        self.had_share = False
        self.former: tuple[str, int] | None = None
        self._shares: dict[int, list[int]] = {}  # by generation

    @property
    def owner(self) -> str:
        return self.name

    def _on_error(self, error: int, step: Callable[[], None]) -> None:
        if error == ErrorCode.FENCED_INSTANCE_ID:
            if self.had_share:
                self.violate("fenced-instance", f"{self.member_id} is told that another has its name")
            self.engine.counts["static members told that they are fenced"] += 1
            error = ErrorCode.UNKNOWN_MEMBER_ID  # somebody starts it again
        if error == ErrorCode.UNKNOWN_MEMBER_ID:
            self.had_share = False
        super()._on_error(error, step)

    def _take_share(self, share: bytes) -> None:
        super()._take_share(share)
        before = self._shares.setdefault(self.generation, self.owned)
        if before != self.owned:
            self.violate("static-share", f"{self.owned} in generation {self.generation}, and {before} was given to its name")
        self.engine.counts["shares taken over"] += not self.had_share and self.previous == self.generation
        self.had_share = True

    def _author(self, partition: int) -> tuple[str, int, bool]:
        if self.had_share and self.former is not None and self.random.random() < 0.4:
            return *self.former, True
        return super()._author(partition)

    # -- ends ----------------------------------------------------------------------------------

    def _leave(self) -> None:
        """As an administrator has it leave."""
        self._end()
        super()._leave()

    def _vanish(self) -> None:
        self._end()
        self.member_id = ""
        super()._vanish()

    def _end(self) -> None:
        if self.had_share:
            self.former = self.member_id, self.generation
        self.had_share = False
