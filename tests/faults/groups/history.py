"""What the members of one group saw, and what of it may not be.

Owns: `GroupHistory`, fed with all members' events in order, asked for `problems` at the end. Pure; it knows nothing of
zafka, nor of the clients.

| kind | does not hold |
|---|---|
| skipped | each record is delivered: a reader begins no later than where its predecessor ended, nor than anybody tried to commit, and goes on without a gap; at the end somebody has read all |
| again | no record whose commit was acknowledged is delivered again |
| twice | a record is delivered twice only if the first reader crashed, or lost its partition, before it committed |
| two owners | a partition has one owner at any time; one that lost it without knowing may believe for longer |
| two owners in a generation | of the owners that a partition has in one generation, there is one |
| generation went back | a member's generation never does |
| not its own | only the owner is given records |
| commit went back | what is committed, as anybody is told, never falls behind what was acknowledged or told before |
| commit ahead | and is never ahead of what was delivered |

Where members are stopped, or cut off from their coordinator, for longer than their session (`may_be_cut_off`), they lose partitions
without knowing, and may let go of them, or be told late that they were given them, as if they had them. Then who has a partition is what the
generations say, and a commit that was refused at the last moment lets records come again.
Where a group may have members of either protocol (`may_begin_anew`), its generations begin again at the first ones when a member of the
other protocol comes while it is empty, as with Kafka.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.faults.groups import events
from tests.faults.groups.events import NO_GENERATION, Event

TOLD_MAX = 5


@dataclass(slots=True)
class _Partition:
    """One partition as the group reads it.

    owner: who has it; doubted: an owner before it who has not let go: he has lost it, or there are two.
    position: offset after the last record delivered to this owner, None before its first.
    end: after the last that was delivered to anybody. wanted: the highest that anybody tried to commit. committed: after the
    last whose commit was acknowledged. is_refused: the last commit of it was not.
    excused: an owner crashed or lost it since somebody last began, so that what it had not committed comes again.
    settled: after the last that was delivered since then, and so may not come again; what lies between it and `end` comes once more.
    owners: by generation.
    """

    owner: str | None = None
    doubted: set[str] = field(default_factory=set)
    position: int | None = None
    end: int = 0
    wanted: int = 0
    committed: int = 0
    is_refused: bool = False
    observed: int = 0
    excused: bool = False
    settled: int = 0
    owners: dict[int, str] = field(default_factory=dict)


class GroupHistory:
    """delivered, again: how many records came, and how many of them once more. lost: who lost partitions, how often."""

    def __init__(self, partitions: int, *, may_be_cut_off: bool = False, may_begin_anew: bool = False) -> None:
        self.may_be_cut_off = may_be_cut_off
        self.may_begin_anew = may_begin_anew
        self.delivered = 0
        self.again = 0
        self.lost: Counter[str] = Counter()
        self._partitions = [_Partition() for _ in range(partitions)]
        self._generations: dict[str, int] = {}
        self._newest = NO_GENERATION
        self._problems: list[str] = []
        self._counts: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"<GroupHistory delivered={self.delivered} again={self.again} problems={self._counts.total()}>"

    # -- what happens ----------------------------------------------------------------------------

    def take(self, event: Event) -> None:
        """The next event of any member, in order of time."""
        match event.name:
            case events.ASSIGNED:
                self._assigned(event)
            case events.REVOKED | events.LOST:
                self._let_go(event, event.partitions)
            case events.CLOSED | events.KILLED:
                self._let_go(event, range(len(self._partitions)))
            case events.CONSUMED:
                for partition, first, last in event.consumed:
                    self._consumed(event.member, partition, first, last)
            case events.WANTED | events.COMMITTED:
                self._commits(event)

    def observed(self, partition: int, offset: int) -> None:
        """What somebody else was told of commits; everything acknowledged before he asked has been taken."""
        one = self._partitions[partition]
        if offset < max(one.committed, one.observed):
            self._tell("commit went back", f"partition {partition}: {offset} after {max(one.committed, one.observed)}")
        one.observed = max(one.observed, offset)

    def ends(self, partition: int, offset: int) -> None:
        """Nothing comes any more: what the log's end offset is, and so where the reader should be."""
        one = self._partitions[partition]
        if one.end < offset:
            self._tell("skipped", f"partition {partition}: read up to {one.end} of {offset}")
        if one.observed > one.end:
            self._tell("commit ahead", f"partition {partition}: {one.observed} committed, {one.end} delivered")
        self._settle(partition, one)

    def problems(self) -> list[str]:
        return self._problems + [
            f"{kind}: ... and {count - TOLD_MAX} more" for kind, count in self._counts.items() if count > TOLD_MAX]

    # -- what does not hold ----------------------------------------------------------------------

    def _assigned(self, event: Event) -> None:
        if event.generation != NO_GENERATION:
            if self.may_begin_anew and event.generation < self._newest and self._is_empty():
                self._generations.clear()
                for one in self._partitions:
                    one.owners.clear()
                self._newest = NO_GENERATION
            self._newest = max(self._newest, event.generation)
            if event.generation < self._generations.get(event.member, NO_GENERATION):
                self._tell("generation went back", f"{event.member}: {event.generation}")
            self._generations[event.member] = event.generation
        for partition in event.partitions:
            one = self._partitions[partition]
            if event.generation != NO_GENERATION:
                first = one.owners.setdefault(event.generation, event.member)
                if first != event.member:
                    self._tell("two owners in a generation",
                               f"partition {partition}, {event.generation}: {first} and {event.member}")
                if self.may_be_cut_off and event.generation < max(one.owners):  # told late: others had it since
                    one.doubted.add(event.member)
                    continue
            if event.member in one.doubted:
                self._let_go_doubted(partition, one, event.member, is_involuntary=False)
            if one.owner is not None and one.owner != event.member:
                one.doubted.add(one.owner)
            one.owner, one.position = event.member, None

    def _is_empty(self) -> bool:
        return all(one.owner is None and not one.doubted for one in self._partitions)

    def _commits(self, event: Event) -> None:
        for partition, offset in event.offsets:
            one = self._partitions[partition]
            one.wanted = max(one.wanted, offset)
            if event.name == events.COMMITTED:
                one.is_refused = event.is_refused
                if not event.is_refused:
                    one.committed = max(one.committed, offset)

    def _let_go(self, event: Event, partitions: Iterable[int]) -> None:
        is_involuntary = event.name in (events.LOST, events.KILLED)
        if event.name == events.LOST and event.partitions:
            self.lost[event.member] += 1
        for partition in partitions:
            one = self._partitions[partition]
            if event.member not in (one.owner, *one.doubted):
                continue
            if event.member == one.owner or one.position is None:  # an owner who has begun since had that before him
                one.excused |= is_involuntary or (self.may_be_cut_off and one.is_refused)
            if event.member in one.doubted:
                self._let_go_doubted(partition, one, event.member, is_involuntary=is_involuntary)
            if event.member == one.owner:
                one.owner, one.position = None, None

    def _let_go_doubted(self, partition: int, one: _Partition, member: str, *, is_involuntary: bool) -> None:
        one.doubted.discard(member)
        if not is_involuntary and not self.may_be_cut_off:
            self._tell("two owners", f"partition {partition}: {member} still, and {one.owner} already")

    def _settle(self, partition: int, one: _Partition) -> None:
        for member in sorted(one.doubted):
            self._tell("two owners", f"partition {partition}: {member} to the end, and {one.owner}")
        one.doubted.clear()

    def _consumed(self, member: str, partition: int, first: int, last: int) -> None:
        one = self._partitions[partition]
        self.delivered += last + 1 - first
        self.again += max(0, min(one.end, last + 1) - first)
        where = f"partition {partition}, offset {first}, {member}"
        if member in one.doubted:  # it has lost it, or that is told when it lets go
            return
        if member != one.owner:
            self._tell("not its own", f"{where}: {one.owner} has it")
        if one.position is None:
            if first > one.end:
                self._tell("skipped", f"{where}: the one before had ended at {one.end}")
            elif first > one.wanted:
                self._tell("skipped", f"{where}: nobody tried to commit more than {one.wanted}")
            if first < one.committed:
                self._tell("again", f"{where}: {one.committed} was committed")
            elif one.excused or one.doubted:
                one.settled = first
            elif first < one.settled:
                self._tell("twice", f"{where}: delivered up to {one.settled}, committed {one.committed}; nobody crashed")
            one.excused = False
        elif first != one.position:
            self._tell("skipped" if first > one.position else "twice", f"{where}: after {one.position - 1}")
        one.position = last + 1
        one.settled = max(one.settled, last + 1)
        one.end = max(one.end, last + 1)

    def _tell(self, kind: str, what: str) -> None:
        self._counts[kind] += 1
        if self._counts[kind] <= TOLD_MAX:
            self._problems.append(f"{kind}: {what}")
