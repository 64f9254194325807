"""A partition and its broker's cleaner, between which nothing but mail goes: who asks when, who is told what, who gives up.

Source: Kafka LogCleaner, LogCleanerManager; LogValidator (records without a key).
"""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.unit.disks import ClosingDisk
from tests.unit.drive import SHELL, Drive, bodies, exit_of, only
from tests.unit.drive_partition import BROKER, NOW_MS, SUPERVISOR, Partition, answers, batch, offsets
from zafka.actors.actor import Effect, Mail, Peer, PeerGone, Send, TimerFired
from zafka.actors.cleaner import STEP_TIMER, build
from zafka.actors.cleaner_messages import Clean, Cleaned, CleaningFailed, StartCleaner, Swapped
from zafka.actors.messages import ActorDown, ActorUp, BecomeLeader, ConfigChanged, Ready, Shutdown
from zafka.actors.start import CleanerStart
from zafka.storage.batch import read_header, with_records
from zafka.storage.disk import File
from zafka.storage.records import decode_batch, encode_batch
from zafka.storage.verify import verify

CLEANER, PARTITION = Peer("cleaner 1", 9), Peer("partition orders-0", 8)
COMPACTED = {
    "cleanup.policy": "compact", "internal.segment.bytes": "400", "internal.checkpoint.batches": "1",
    "min.cleanable.dirty.ratio": "0.01", "log.cleaner.backoff.ms": "1000", "segment.ms": "1000000000000"}


class BrokenDisk(ClosingDisk):
    """full: nothing may be written into files of this suffix. keeps: those of this one cannot be taken away."""

    full = keeps = ""

    def pwritev(self, file: File, buffers: Any, position: int) -> None:
        if self.full and file.path.name.endswith(self.full):
            raise OSError(errno.ENOSPC, "no room")
        super().pwritev(file, buffers, position)

    def unlink(self, path: Path) -> None:
        if self.keeps and path.name.endswith(self.keeps):
            raise OSError(errno.EIO, "it stays")
        super().unlink(path)


class Pair:
    """A partition that leads, and a cleaner, on one disk. lost: mail to the partition is thrown away."""

    def __init__(self, directory: Path, **config: str) -> None:
        self.disk = BrokenDisk()
        self.partition = Partition(directory, {**COMPACTED, **config}, disk=self.disk)
        self.cleaner = Drive(build(CleanerStart(1), self.disk, self.partition.now, lambda: None), wall_ms=NOW_MS)
        assert bodies(self.cleaner.start(), Ready)
        asked = bodies(self.partition.start(), StartCleaner)
        assert bool(asked) == ("compact" in self.partition.config["cleanup.policy"])
        self.partition.link(BROKER)
        self.partition.send(BROKER, BecomeLeader(0, self.partition.config))
        self.told: list[Any] = []  # between the two

    def produce(self, *pairs: tuple[bytes, bytes | None]) -> None:
        for key, value in pairs:
            offsets(self.partition.produce(encode_batch([(NOW_MS, key, value, ())])))

    def meet(self) -> None:
        self.carry(self.partition.send(SUPERVISOR, ActorUp(*CLEANER, "ipc://there")))

    def ask(self) -> Clean:
        """What the partition asks of a cleaner that has come up, and nobody has told the cleaner."""
        (asked,) = bodies(self.partition.send(SUPERVISOR, ActorUp(*CLEANER, "ipc://there")), Clean)
        return asked

    def carry(self, effects: list[Effect]) -> None:
        """Deliver mail between the two, let the cleaner's steps be due, until there is nothing left."""
        mails = [effect for effect in effects if isinstance(effect, Send) and effect.to in (CLEANER, PARTITION)]
        while mails or self.cleaner.timers:
            if not mails:
                mails = self.sent(self.cleaner.pass_time(0.0))
                assert mails or not self.cleaner.timers or self.cleaner.now.monotonic_s < min(self.cleaner.timers.values())
                if not mails:
                    return
            mail = mails.pop(0)
            self.told.append(mail.body)
            to_cleaner = mail.to == CLEANER
            sender, to = (PARTITION, self.cleaner) if to_cleaner else (CLEANER, self.partition)
            mails += self.sent(to.turn(Mail(sender, mail.body)))

    def sent(self, effects: list[Effect]) -> list[Send]:
        return [effect for effect in effects if isinstance(effect, Send) and effect.to in (CLEANER, PARTITION)]

    def wait(self, seconds: float) -> None:
        self.carry(self.partition.pass_time(seconds))

    def values(self) -> dict[bytes | None, bytes | None]:
        return {record.key: record.value for record in self.records()}

    def records(self) -> list[Any]:
        log, found = self.partition.partition.replica.log, []
        for segment in log.segments:
            for position, header in segment.headers(0):
                found += decode_batch(segment.read_batch(position, header), header)
        return found

    @property
    def cleaned_offset(self) -> int:
        return self.partition.partition.replica.log.swap.cleaned_offset

    def names(self) -> list[str]:
        return [path.name for path in self.partition.directory.iterdir()]


def keys(count: int, keys: int = 3) -> list[tuple[bytes, bytes | None]]:
    return [(b"%d" % (i % keys), b"%d" % i * 20) for i in range(count)]


def test_a_pass_from_the_asking_to_the_end(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    pair.produce(*keys(40))
    before = pair.values()
    pair.meet()
    assert pair.values() == before and len(pair.records()) < 15
    first, *others = [type(body) for body in pair.told]
    assert first is Clean and others == [Cleaned, Swapped] * (len(others) // 2)
    active = pair.partition.partition.replica.log.segments[-1].base_offset
    assert pair.cleaned_offset == active > 30
    assert verify(pair.disk, pair.partition.directory).is_sound
    pair.partition.stop()


def test_a_pass_leaves_no_file_open(tmp_path: Path) -> None:
    """Neither of what it reads and writes, nor of the segments that were replaced."""
    pair = Pair(tmp_path)
    pair.produce(*keys(40))
    opened = {file.inode for file in pair.disk.open_files.values()}
    assert len(opened) == len(pair.disk.open_files) and pair.values(), "reading opens all that will be replaced"
    there = {file.inode: file.path for file in pair.disk.open_files.values()}
    pair.meet()
    left = [file.inode for file in pair.disk.open_files.values()]
    assert len(left) == len(set(left)) and opened <= set(left) < there.keys()
    assert all(there[inode].stat().st_ino == inode for inode in left)


def test_only_what_is_due_is_asked_for_and_a_little_later_again(tmp_path: Path) -> None:
    pair = Pair(tmp_path, **{"min.cleanable.dirty.ratio": "0.5"})
    pair.produce(*keys(40, keys=40))
    pair.meet()
    assert pair.cleaned_offset > 0
    pair.told.clear()
    pair.produce(*keys(4, keys=40))
    pair.wait(5.0)
    assert not pair.told, "less than half is dirty"
    pair.produce(*keys(60, keys=40))
    pair.wait(1.0)
    assert [type(body) for body in pair.told][:2] == [Clean, Cleaned]


def test_a_topic_that_is_not_compacted_asks_for_no_cleaner_until_it_is(tmp_path: Path) -> None:
    pair = Pair(tmp_path, **{"cleanup.policy": "delete"})
    pair.produce(*keys(40))
    assert not bodies(pair.partition.pass_time(100.0), StartCleaner)
    changed = ConfigChanged({**pair.partition.config, "cleanup.policy": "compact"})
    assert bodies(pair.partition.send(BROKER, changed), StartCleaner)
    pair.meet()
    assert pair.cleaned_offset > 0
    pair.partition.send(BROKER, ConfigChanged(pair.partition.config))
    pair.produce(*keys(40))
    pair.told.clear()
    pair.wait(100.0)
    assert not pair.told


def test_what_memory_does_not_hold_is_the_next_pass(tmp_path: Path) -> None:
    pair = Pair(tmp_path, **{"log.cleaner.dedupe.buffer.size": "1024"})
    pair.produce(*keys(60, keys=30))
    before = pair.values()
    pair.meet()
    assert sum(type(body) is Clean for body in pair.told) > 3
    active = pair.partition.partition.replica.log.segments[-1].base_offset
    assert pair.cleaned_offset == active and pair.values() == before


def test_the_cleaner_keeps_to_its_rate(tmp_path: Path) -> None:
    pair = Pair(tmp_path, **{"log.cleaner.io.max.bytes.per.second": "1024"})
    pair.produce(*keys(40))
    pair.meet()
    assert pair.cleaned_offset == 0
    size, waits = pair.partition.partition.replica.log.size_bytes, 0
    while not pair.cleaned_offset:
        pair.carry(pair.cleaner.pass_time(0.1))
        waits += 1
        assert waits < 300
    assert waits * 0.1 > size / 1024


def test_the_most_urgent_first_and_one_at_a_time(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    pair.produce(*keys(20))
    asked = pair.ask()
    others = [Mail(Peer(f"partition other-{i}", 20 + i), Clean(1, i / 10, 1e9, asked.wanted)) for i in (1, 3, 2)]
    effects = pair.cleaner.turn(*others)
    order = []
    while not order or pair.cleaner.timers:
        effects = effects + pair.cleaner.pass_time(1.0)
        for send in [effect for effect in effects if isinstance(effect, Send)]:
            order.append(send.to)
            effects = pair.cleaner.send(send.to, Swapped(1, False))  # type: ignore[arg-type]
    assert [peer.name[-1] for peer in order] == ["3", "2", "1"]


def test_a_dead_partition_is_forgotten(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    pair.produce(*keys(20))
    asked = pair.ask()
    pair.cleaner.send(PARTITION, asked)
    pair.cleaner.send(Peer("partition b-0", 30), asked)
    pair.cleaner.send(SUPERVISOR, ActorDown(*PARTITION), ActorDown("partition b-0", 30))
    assert not pair.cleaner.pass_time(10.0)
    assert exit_of(pair.cleaner.send(SUPERVISOR, Shutdown()))


@pytest.mark.parametrize("gone", [ActorDown(*CLEANER), PeerGone(CLEANER)])
def test_a_cleaner_that_dies_is_asked_for_again(tmp_path: Path, gone: Any) -> None:
    pair = Pair(tmp_path)
    pair.produce(*keys(40))
    assert bodies(pair.partition.send(SUPERVISOR, ActorUp(*CLEANER, "ipc://there")), Clean)
    assert not exit_of(pair.partition.send(SUPERVISOR, gone))
    assert bodies(pair.partition.pass_time(1.0), StartCleaner)
    again = Peer(CLEANER.name, 11)
    (asked,) = bodies(pair.partition.send(SUPERVISOR, ActorUp(*again, "ipc://there")), Clean)
    assert asked.number == 2
    replacement = only(run(pair, asked), Cleaned).replacement
    for sender, number in ((CLEANER, 1), (CLEANER, 2), (again, 1)):
        late = Cleaned(number, replacement, True)
        assert not bodies(pair.partition.send(sender, late), Swapped), "neither the old one nor the old pass is heard"
    assert pair.cleaned_offset == 0


def run(pair: Pair, asked: Clean) -> list[Effect]:
    pair.cleaner.send(PARTITION, asked)
    return pair.cleaner.pass_time(10.0)


def test_the_swap_waits_for_the_flush_and_the_cleaner_for_the_swap(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    pair.produce(*keys(40))
    asked = pair.ask()
    pair.cleaner.auto_flush = False
    pair.cleaner.send(PARTITION, asked)
    assert not bodies(pair.cleaner.pass_time(1.0), Cleaned) and len(pair.cleaner.flushes) == 1
    assert not pair.cleaner.turn(Mail(SHELL, TimerFired(STEP_TIMER))) and not pair.cleaner.timers
    cleaned = only(pair.cleaner.flush(), Cleaned)
    pair.partition.auto_flush = False
    count = len(pair.records())
    assert not bodies(pair.partition.send(CLEANER, cleaned), Swapped)
    for _ in range(20):
        assert pair.partition.flushes
        if done := bodies(pair.partition.flush(), Swapped):
            break
    assert done == [Swapped(1, True)] and len(pair.records()) < count


def test_another_cleaner_is_asked_for_nothing_while_what_the_old_one_wrote_is_put_in_place(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    pair.produce(*keys(40))
    asked = pair.ask()
    cleaned = only(run(pair, asked), Cleaned)
    pair.partition.auto_flush = False
    pair.partition.send(CLEANER, cleaned)
    pair.partition.send(SUPERVISOR, ActorDown(*CLEANER))
    again = Peer(CLEANER.name, 11)
    assert pair.partition.flushes
    assert not bodies(pair.partition.send(SUPERVISOR, ActorUp(*again, "ipc://there")), Clean)
    told = []
    while pair.partition.flushes:
        told += pair.partition.flush()
    assert pair.partition.partition.replica.log.swap.is_settled
    assert not cleaned.is_last and not bodies(told, Swapped), "who is not there any more is told nothing"
    assert bodies(pair.partition.pass_time(1.0), Clean)


def test_a_cleaner_that_is_seen_before_the_death_of_the_one_before_is_asked_at_once(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    pair.produce(*keys(40))
    assert pair.ask().number == 1
    again = Peer(CLEANER.name, 11)
    (asked,) = bodies(pair.partition.send(SUPERVISOR, ActorUp(*again, "ipc://there")), Clean)
    assert asked.number == 2
    pair.partition.send(SUPERVISOR, ActorDown(*CLEANER))
    assert not bodies(pair.partition.pass_time(5.0), StartCleaner)


def test_a_group_that_retention_has_reached_ends_the_pass(tmp_path: Path) -> None:
    """What is left of it was not cleaned: if later ones were, the deletion of a key could go before its value."""
    pair = Pair(tmp_path)
    pair.produce(*keys(40))
    pair.meet()
    assert pair.told[-1] == Swapped(pair.told[0].number, True), "an earlier swap has come to its end"
    pair.produce(*keys(40))
    (asked,) = bodies(pair.partition.pass_time(1.0), Clean)
    cleaned = only(run(pair, asked), Cleaned)
    assert not cleaned.is_last and len(cleaned.replacement.bases) > 1
    partition = pair.partition.partition
    partition.on_mail(Mail(CLEANER, cleaned), pair.partition.now)
    log = partition.replica.log
    log.update_config(replace(log.config, cleanup_policy=("compact", "delete"), retention_bytes=log.size_bytes - 400, retention_ms=-1))
    assert log.apply_retention(NOW_MS, log.end_offset)
    assert only(pair.partition.turn(), Swapped) == Swapped(asked.number, False)
    assert not bodies(pair.cleaner.send(PARTITION, Swapped(asked.number, False)) + pair.cleaner.pass_time(10.0), Cleaned)


def test_a_group_that_is_told_again_is_not_put_in_place_again(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    pair.produce(*keys(40))
    pair.meet()
    last = next(body for body in reversed(pair.told) if isinstance(body, Cleaned))
    records = pair.records()
    assert not pair.partition.send(CLEANER, last) and pair.records() == records


def test_who_does_not_lead_asks_for_no_pass(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    pair.produce(*keys(40))
    pair.partition.stop()
    partition = Partition(tmp_path, pair.partition.config)
    partition.start()
    partition.link(BROKER)
    assert not bodies(partition.send(SUPERVISOR, ActorUp(*CLEANER, "ipc://there")), Clean)
    partition.send(BROKER, BecomeLeader(1, partition.config))
    assert bodies(partition.pass_time(1.0), Clean)


def test_a_pass_that_waits_says_how_far_it_would_go(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    pair.produce(*keys(40))
    log, compaction = pair.partition.partition.replica.log, pair.partition.partition._compaction
    compaction.keep_from = 0
    pair.meet()
    assert not pair.told and compaction.waits_for == log.segments[-1].base_offset


def test_a_failed_flush_of_the_cleaner_ends_the_pass_and_leaves_nothing(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    pair.produce(*keys(40))
    asked = pair.ask()
    pair.cleaner.auto_flush = False
    pair.cleaner.send(PARTITION, asked)
    pair.cleaner.pass_time(1.0)
    pair.carry(pair.cleaner.fail_flush())
    assert isinstance(pair.told[-1], CleaningFailed) and not [name for name in pair.names() if "cleaned" in name]
    pair.cleaner.auto_flush = True
    pair.wait(1.0)
    assert pair.cleaned_offset > 0


def test_a_full_disk_ends_the_pass_and_leaves_nothing(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    pair.produce(*keys(40))
    pair.disk.full = ".cleaned"
    pair.meet()
    assert isinstance(pair.told[-1], CleaningFailed) and "no room" in pair.told[-1].reason
    assert not [name for name in pair.names() if "cleaned" in name]
    pair.disk.full = ""
    pair.wait(1.0)
    assert pair.cleaned_offset > 0


def test_what_cannot_be_taken_away_is_said_and_goes_with_the_next_pass(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    pair.produce(*keys(40))
    pair.disk.full, pair.disk.keeps = ".cleaned", ".cleaned"
    with capture_logs() as said:
        pair.meet()
    assert isinstance(pair.told[-1], CleaningFailed) and "no room" in pair.told[-1].reason
    assert [each["reason"] for each in said if each["event"] == "cleaned files stay"] == ["[Errno 5] it stays"]
    assert [name for name in pair.names() if "cleaned" in name]
    pair.disk.full = pair.disk.keeps = ""
    pair.wait(1.0)
    assert pair.cleaned_offset > 0 and not [name for name in pair.names() if "cleaned" in name]


def test_a_flush_that_ends_behind_its_pass_is_nobodys(tmp_path: Path) -> None:
    """The partition died meanwhile; what its successor asks for has another flush."""
    pair = Pair(tmp_path)
    pair.produce(*keys(40))
    asked = pair.ask()
    pair.cleaner.auto_flush = False
    pair.cleaner.send(PARTITION, asked)
    pair.cleaner.pass_time(1.0)
    pair.cleaner.send(SUPERVISOR, PeerGone(PARTITION))
    assert not pair.sent(pair.cleaner.flush())
    pair.cleaner.send(PARTITION, asked)
    pair.cleaner.pass_time(1.0)
    pair.cleaner.send(SUPERVISOR, PeerGone(PARTITION))
    assert not pair.sent(pair.cleaner.fail_flush())


@pytest.mark.parametrize("fails", [False, True])
def test_what_ends_an_earlier_pass_does_not_end_this_one(tmp_path: Path, fails: bool) -> None:
    """Neither the end of who asked for it, nor a flush that was on its way, nor an answer that is meant for it."""
    pair = Pair(tmp_path)
    pair.produce(*keys(40))
    asked, successor = pair.ask(), Peer(PARTITION.name, PARTITION.incarnation + 1)
    pair.cleaner.auto_flush = False
    pair.cleaner.send(PARTITION, asked)
    pair.cleaner.pass_time(1.0)
    pair.cleaner.send(SUPERVISOR, ActorDown(*PARTITION))
    pair.cleaner.send(successor, asked)
    pair.cleaner.pass_time(1.0)
    assert len(pair.cleaner.flushes) == 2
    pair.cleaner.send(SUPERVISOR, PeerGone(PARTITION))
    assert not (pair.cleaner.fail_flush() if fails else pair.cleaner.flush())
    pair.cleaner.auto_flush = True
    assert only(pair.cleaner.flush(), Cleaned)
    for sender, number in ((PARTITION, asked.number), (successor, asked.number + 1)):
        assert not pair.cleaner.send(sender, Swapped(number, True)) + pair.cleaner.pass_time(10.0)
    assert only(pair.cleaner.send(successor, Swapped(asked.number, True)) + pair.cleaner.pass_time(10.0), Cleaned)


def test_who_asks_again_has_given_up_the_pass_before(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    pair.produce(*keys(40))
    asked = pair.ask()
    assert only(run(pair, asked), Cleaned).number == 1
    assert only(run(pair, Clean(2, asked.urgency, asked.bytes_per_second, asked.wanted)), Cleaned).number == 2


def test_a_damaged_segment_is_tried_again_less_and_less_often(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    pair.produce(*keys(40))
    path = pair.partition.partition.replica.log.segments[1].path
    whole = path.read_bytes()
    path.write_bytes(whole[:70] + b"?" + whole[71:])
    pair.meet()
    for _ in range(100):
        pair.wait(1.0)
    assert 5 < sum(isinstance(body, CleaningFailed) for body in pair.told) < 10
    path.write_bytes(whole)
    pair.wait(200.0)
    assert pair.cleaned_offset > 0
    pair.produce(*keys(40))
    path = pair.partition.partition.replica.log.segments[-2].path
    path.write_bytes(b"?" + path.read_bytes()[1:])
    pair.told.clear()
    for _ in range(4):
        pair.wait(1.0)
    assert sum(isinstance(body, CleaningFailed) for body in pair.told) > 1, "earlier failures are forgotten"


def test_a_disk_that_is_full_for_the_checkpoint_puts_the_swap_off(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    pair.produce(*keys(40))
    pair.disk.full = "recovery-checkpoint.tmp"
    pair.meet()
    assert pair.cleaned_offset == 0
    pair.disk.full = ""
    pair.wait(3.0)
    assert pair.cleaned_offset > 0 and pair.told[-1] == Swapped(1, True)


def test_both_policies(tmp_path: Path) -> None:
    """Old segments go, cleaned or not, and what is left is cleaned."""
    pair = Pair(tmp_path, **{
        "cleanup.policy": "compact,delete", "retention.bytes": "900", "retention.ms": "-1",
        "log.retention.check.interval.ms": "700", "file.delete.delay.ms": "100"})
    log = pair.partition.partition.replica.log
    pair.meet()
    for _ in range(12):
        pair.produce(*keys(20, keys=29))
        pair.wait(0.5)
    pair.wait(3.0)
    assert log.start_offset > 50 and log.size_bytes < 1800
    assert log.swap.cleaned_offset == log.segments[-1].base_offset
    assert not [name for name in pair.names() if name.endswith((".cleaned", ".swap", ".deleted"))]
    assert verify(pair.disk, pair.partition.directory).is_sound


def test_retention_that_is_faster_alarms_nobody(tmp_path: Path) -> None:
    pair = Pair(tmp_path, **{"cleanup.policy": "compact,delete"})
    pair.produce(*keys(40))
    asked = pair.ask()
    pair.partition.partition.replica.log.segments[0].path.unlink()
    with capture_logs() as said:
        pair.carry([Send(CLEANER, asked)])
    assert isinstance(pair.told[-1], CleaningFailed)
    assert [each["log_level"] for each in said if each["event"] == "cleaning failed"] == ["debug"]


def test_a_topic_that_was_deleted_meanwhile(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    pair.produce(*keys(40))
    asked = pair.ask()
    pair.partition.directory.rename(tmp_path / "orders-0.x-delete")
    assert "No such file" in only(run(pair, asked), CleaningFailed).reason


def test_a_partition_that_stops_offers_nothing_to_its_log(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    pair.produce(*keys(40))
    asked = pair.ask()
    cleaned = only(run(pair, asked), Cleaned)
    pair.partition.auto_flush = False
    pair.partition.send(SUPERVISOR, Shutdown())
    assert bodies(pair.partition.send(CLEANER, cleaned), Swapped) == [Swapped(1, False)]
    assert not [name for name in pair.names() if "swap" in name]


# -- records without a key ------------------------------------------------------------------------


def test_records_without_a_key_are_refused_with_their_places(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    mixed = encode_batch([(NOW_MS, b"k", b"1", ()), (NOW_MS, None, b"2", ()), (NOW_MS, b"", b"3", ())], codec=1)
    (answer,) = answers(pair.partition.produce(mixed))
    told = "Compacted topic cannot accept message without key in topic partition orders-0"
    assert (answer.error, answer.record_errors) == (87, [(1, told)])
    assert answer.message == (
        "One or more records have been rejected due to 1 record errors in total, and only showing the first three errors "
        f"at most: [RecordError(batchIndex=1, message='{told}')]")
    (answer,) = answers(pair.partition.produce(batch(*[b"v"] * 6)))
    assert len(answer.record_errors) == 6 and answer.message.count("batchIndex") == 3
    assert pair.partition.partition.replica.log.end_offset == 0


def test_a_batch_that_does_not_decode_is_refused_by_a_compacted_topic(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    whole = encode_batch([(NOW_MS, b"k", b"v" * 30, ())])
    nonsense = with_records(
        read_header(whole)._replace(leader_epoch=-1), b"\1" * 30, record_count=1, attributes=0, base_timestamp=NOW_MS,
        max_timestamp=NOW_MS)
    (answer,) = answers(pair.partition.produce(nonsense))
    assert answer.error in (2, 87)
