"""`__cluster` as its leader has it: the state that it leads to, who reads it, and the snapshots that replace its beginning.

Owns: `ClusterLog`. A start reads the newest snapshot and of the log what came after it; so does a broker that starts, over the
same messages. Snapshots are written beside the work (`actors/snapshots.py`) from the state as it is when nothing decided
is unwritten; a reader that was away so long that its place is not in the log any more is given one, too.
Invariant: nobody is shown what is not committed: a snapshot has its name when the log up to it is on disk.
May fail with CorruptLog or BadBatch where what has to be read is damaged, CorruptSnapshot if the newest one has rotted since
it was read (the next start goes by the one before), OSError from the disk.
"""

from __future__ import annotations

from collections.abc import Callable

from zafka.actors import cluster_snapshot
from zafka.actors.actor import Effects, Now, Peer, Send
from zafka.actors.cluster_state import ClusterState, events_in
from zafka.actors.messages import ClusterRecords, ClusterSnapshot
from zafka.actors.replica import Replica
from zafka.actors.snapshots import ReplacingSnapshots
from zafka.storage.disk import Disk

ANSWER_BYTES_MAX = 1024 * 1024  # of `__cluster` in one answer to ReadCluster, at least one batch


class ClusterLog:
    """progress: told while the log is read, which may take long."""

    def __init__(self, disk: Disk, replica: Replica[Effects], progress: Callable[[], None]) -> None:
        self.snapshots = ReplacingSnapshots(disk, replica)
        self._replica = replica
        self._progress = progress
        self._readers: dict[str, tuple[Peer, int]] = {}  # long polls: each broker's, and the offset it reads from

    def read_state(self) -> ClusterState:
        """The state after everything that the log holds, committed or not."""
        self.snapshots.abandon()
        state = self.snapshots.load(ClusterState, cluster_snapshot.restore, self._progress)
        return replay(state, self._replica, self._progress, from_offset=self.snapshots.offset)

    # -- brokers -------------------------------------------------------------------------------

    def on_read(self, peer: Peer, offset: int) -> None:
        self._readers[peer.name] = peer, offset

    def on_gone(self, peer: Peer) -> None:
        if self._readers.get(peer.name, (None, 0))[0] == peer:
            del self._readers[peer.name]

    def answer_readers(self) -> Effects:
        """Give the brokers that wait what is committed by now."""
        effects: Effects = []
        high_watermark = self._replica.high_watermark
        for peer, offset in list(self._readers.values()):
            if offset < high_watermark:
                effects.append(self._answer(peer, offset, high_watermark))
                del self._readers[peer.name]
        return effects

    def _answer(self, peer: Peer, offset: int, high_watermark: int) -> Send:
        is_gone = offset < self._replica.log.start_offset
        if is_gone or (offset == 0 and self.snapshots.offset > 0):
            sections = self.snapshots.sections()
            return Send(peer, ClusterSnapshot(
                self.snapshots.offset, high_watermark, [len(section) for section in sections]), sections)
        records, next_offset = self._replica.read(offset, ANSWER_BYTES_MAX)
        return Send(peer, ClusterRecords(next_offset, high_watermark), [records])

    # -- snapshots -----------------------------------------------------------------------------

    def on_turn_end(self, state: ClusterState, now: Now, *, stopping: bool = False) -> Effects:
        """Begin a snapshot if one is due, and go on with the one that was begun. `state` is what the log says."""
        snapshots = self.snapshots
        if snapshots.is_due(stopping=stopping):
            snapshots.begin(iter(cluster_snapshot.sections_of(state)))
        snapshots.trim(now)
        return snapshots.on_turn_end(now, hurry=stopping)


def replay(
    state: ClusterState, replica: Replica[Effects], progress: Callable[[], None], *, from_offset: int
) -> ClusterState:
    """The state after what the log holds from there on."""
    offset, end_offset = from_offset, replica.log.end_offset
    while offset < end_offset:
        records, offset = replica.read(offset, ANSWER_BYTES_MAX, limit_offset=end_offset)
        for at, event in events_in(records):
            if at >= from_offset:  # a snapshot may stand in the middle of a batch, if the log was recovered by hand
                state.apply(event)
        progress()
    return state
