"""The partition leader, driven with mail and flushes on a real disk: what it answers, and when."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.disks import FullableDisk
from tests.unit.drive import bodies, exit_of, only
from tests.unit.drive_partition import (
    BROKER,
    NOW_MS,
    SUPERVISOR,
    TOPIC_ID,
    Partition,
    answers,
    batch,
    errors,
    numbered,
    offsets,
    visible,
)
from zafka.actors.actor import NO_RECORDS, Exit, Mail, Peer, PeerGone, Send, TimerFired
from zafka.actors.messages import (
    ActorDown,
    ActorUp,
    Advanced,
    BecomeLeader,
    ConfigChanged,
    ListOffset,
    Locate,
    Located,
    OffsetListed,
    Produce,
    ProduceAnswer,
    Produced,
    Ready,
    ReplicaUp,
    Serving,
    Shutdown,
)
from zafka.actors.partition import RETENTION_TIMER
from zafka.storage.records import encode_batch
from zafka.transport.kafka.errors import ErrorCode


@pytest.fixture
def leader(tmp_path: Path) -> Partition:
    """With `fsync: always`, and flushes that end when the test says so."""
    partition = Partition(tmp_path, {"fsync": "always"})
    partition.lead()
    partition.auto_flush = False
    return partition


# -- coming up ---------------------------------------------------------------------------------------


def test_a_new_replica_is_ready_introduces_itself_and_serves_once_it_has_an_epoch(tmp_path: Path) -> None:
    partition = Partition(tmp_path, {})
    assert partition.start() == [Send("supervisor", Ready())]
    assert partition.link(BROKER) == [Send(BROKER, ReplicaUp("orders", 0, TOPIC_ID, -1))]
    assert errors(partition.produce(batch())) == [ErrorCode.NOT_LEADER_OR_FOLLOWER]
    assert partition.locate(0).error == ErrorCode.NOT_LEADER_OR_FOLLOWER
    assert partition.list_offset(-1).error == ErrorCode.NOT_LEADER_OR_FOLLOWER
    serving, advanced = partition.send(BROKER, BecomeLeader(0, {}))
    assert serving == Send(BROKER, Serving(0))
    assert (advanced.body.leader_epoch, advanced.body.high_watermark, advanced.body.end_position) == (0, 0, 0)
    assert repr(partition.actor) == "<Partition orders-0 leader epoch=0 end=0 hw=0>"


def test_an_order_to_lead_is_answered_each_time_but_not_if_it_is_old(tmp_path: Path) -> None:
    partition = Partition(tmp_path, {})
    partition.lead()
    partition.send(BROKER, BecomeLeader(4, {}))
    partition.produce(batch())
    effects = partition.send(BROKER, BecomeLeader(4, {}))
    assert only(effects, Serving).leader_epoch == 4 and only(effects, Advanced).high_watermark == 1
    assert partition.send(BROKER, BecomeLeader(3, {})) == []
    assert only(partition.send(BROKER, BecomeLeader(5, {})), Advanced).leader_epoch == 5
    assert partition.locate(0, epoch=4).error == ErrorCode.FENCED_LEADER_EPOCH


# -- acknowledgement ---------------------------------------------------------------------------------


@pytest.mark.parametrize("acks", [1, -1])
def test_nothing_is_acknowledged_or_shown_before_it_is_flushed(leader: Partition, acks: int) -> None:
    assert leader.produce(batch(b"a", b"b"), acks=acks) == []
    assert len(leader.flushes) == 1
    assert leader.locate(0).length == 0 and leader.list_offset(-1).offset == 0
    (effect,) = leader.flush()
    (advanced,) = visible([effect])
    assert (advanced.high_watermark, advanced.last_stable_offset) == (2, 2)
    assert advanced.end_position == leader.partition.replica.log.size_bytes
    # One message: two would wake the broker twice.
    assert effect == Send(BROKER, Produced([ProduceAnswer(0, 0, 0, -1, 0)], advanced))


def test_one_turn_is_one_flush_and_one_answer(leader: Partition) -> None:
    leader.turn(leader.mail(batch(b"a", b"b")), leader.mail(batch(), batch()), leader.mail(batch()))
    assert len(leader.flushes) == 1
    effects = leader.flush()
    assert only(effects, Produced) and offsets(effects) == [0, 2, 3, 4]
    assert [answer.request_id for answer in answers(effects)] == [0, 1, 2, 3]
    assert not leader.flushes


def test_what_comes_while_a_flush_runs_shares_the_next_one(leader: Partition) -> None:
    leader.produce(batch())
    assert leader.produce(batch()) == [] and leader.produce(batch()) == []
    assert len(leader.flushes) == 1
    assert offsets(leader.flush()) == [0]
    assert len(leader.flushes) == 1
    effects = leader.flush()
    assert offsets(effects) == [1, 2] and visible(effects)[0].high_watermark == 3


def test_acks_0_is_answered_at_once_whether_it_worked_or_not(leader: Partition) -> None:
    good, damaged = batch(), bytearray(batch())
    damaged[-1] ^= 1
    effects = leader.produce(good, bytes(damaged), acks=0)
    assert sorted(errors(effects)) == [ErrorCode.NONE, ErrorCode.CORRUPT_MESSAGE]
    assert offsets(leader.flush()) == []


def test_interval_acknowledges_at_once_and_flushes_by_the_clock(tmp_path: Path) -> None:
    partition = Partition(tmp_path, {"fsync": "interval", "flush.ms": "500"})
    partition.lead()
    partition.auto_flush = False
    effects = partition.produce(batch())
    assert offsets(effects) == [0] and visible(effects)[0].high_watermark == 1
    partition.produce(batch())
    assert not partition.flushes and partition.partition.replica.log.flushed_offset == 0
    partition.pass_time(0.5)
    assert len(partition.flushes) == 1
    partition.flush()
    assert partition.partition.replica.log.flushed_offset == 2
    partition.pass_time(5)
    assert not partition.flushes  # nothing new
    partition.produce(batch())
    partition.pass_time(0.5)
    assert len(partition.flushes) == 1


def test_os_leaves_flushing_to_the_system(tmp_path: Path) -> None:
    partition = Partition(tmp_path, {"fsync": "os"})
    partition.lead()
    partition.auto_flush = False
    assert offsets(partition.produce(batch())) == [0]
    partition.pass_time(60)
    assert not partition.flushes
    assert exit_of(partition.send(SUPERVISOR, Shutdown())) is None
    assert len(partition.flushes) == 1  # but not at the end


def test_a_segment_that_was_sealed_is_flushed_in_every_mode(tmp_path: Path) -> None:
    partition = Partition(tmp_path, {"fsync": "os", "segment.bytes": "1048576"})
    partition.lead()
    partition.auto_flush = False
    partition.produce(batch(bytes(700_000)))
    assert not partition.flushes
    partition.produce(batch(bytes(700_000)))
    assert len(partition.flushes) == 1


def test_records_go_back_and_forth_unchanged(leader: Partition) -> None:
    first, second = batch(b"a", b"b"), batch(b"c" * 1000)
    leader.produce(first, second)
    leader.flush()
    located = leader.locate(1)  # in the middle of the first batch
    path = leader.directory / f"{located.segment_base_offset:020d}.log"
    data = path.read_bytes()[located.position : located.position + located.length]
    assert path.stat().st_ino == located.inode
    # All but the 16 bytes that a leader fills in: base offset, (the same) length, leader epoch.
    assert data[16 : len(first)] == first[16:] and data[len(first) + 16 :] == second[16:]
    assert int.from_bytes(data[len(first) : len(first) + 8], "big") == 2


# -- what is refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "data", "error"),
    [
        ({"max.message.bytes": "100"}, batch(bytes(100)), ErrorCode.MESSAGE_TOO_LARGE),
        ({}, batch() + batch(), ErrorCode.INVALID_RECORD),
        ({}, batch()[:-1], ErrorCode.INVALID_RECORD),
        ({}, batch()[:40], ErrorCode.INVALID_RECORD),
        ({"segment.bytes": "1048576", "max.message.bytes": "2000000"}, batch(bytes(1_100_000)),
         ErrorCode.RECORD_LIST_TOO_LARGE),
        ({}, encode_batch([(NOW_MS, None, b"", ())], producer_id=1, producer_epoch=0, base_sequence=0,
                          transactional=True), ErrorCode.INVALID_TXN_STATE),
        ({"message.timestamp.after.max.ms": "1000"}, batch(timestamp=NOW_MS + 1001), ErrorCode.INVALID_TIMESTAMP),
        ({"message.timestamp.before.max.ms": "1000"}, batch(timestamp=NOW_MS - 1001), ErrorCode.INVALID_TIMESTAMP),
    ],
)
def test_a_batch_that_the_topic_does_not_take_is_refused_with_words(
    tmp_path: Path, config: dict[str, str], data: bytes, error: ErrorCode
) -> None:
    partition = Partition(tmp_path, config)
    partition.lead()
    effects = partition.produce(batch(), data, batch())
    by_id = {answer.request_id: answer for answer in answers(effects)}
    assert (by_id[1].error, by_id[1].base_offset) == (error, -1) and by_id[1].message
    assert (by_id[0].base_offset, by_id[2].base_offset) == (0, 1)  # the others are not held up


def test_acks_that_do_not_exist_are_refused(leader: Partition) -> None:
    assert errors(leader.produce(batch(), acks=2)) == [ErrorCode.INVALID_REQUIRED_ACKS]


def test_log_append_time_is_the_time_of_the_turn(tmp_path: Path) -> None:
    partition = Partition(tmp_path, {"message.timestamp.type": "LogAppendTime"})
    partition.lead()
    (answer,) = answers(partition.produce(numbered(0)))
    assert (answer.base_offset, answer.log_append_time_ms) == (0, NOW_MS)
    partition.pass_time(10)
    assert partition.list_offset(0).timestamp_ms == NOW_MS
    (again,) = answers(partition.produce(numbered(0)))
    assert (again.base_offset, again.log_append_time_ms) == (0, NOW_MS)


# -- the disk ----------------------------------------------------------------------------------------


def test_a_full_disk_is_answered_reads_go_on_and_so_do_writes_when_there_is_room(leader: Partition) -> None:
    leader.produce(numbered(0))
    leader.flush()
    disk = leader.disk
    assert isinstance(disk, FullableDisk)
    disk.full = True
    effects = leader.produce(numbered(1), batch())
    assert errors(effects) == [ErrorCode.KAFKA_STORAGE_ERROR] * 2 and answers(effects)[0].message
    assert leader.locate(0).length > 0 and not leader.flushes
    disk.full = False
    leader.produce(numbered(1))
    assert offsets(leader.flush()) == [1]


# -- reads -------------------------------------------------------------------------------------------


def test_positions_are_told_for_what_is_committed_only(leader: Partition) -> None:
    leader.produce(batch(b"a", b"b"))
    leader.flush()
    leader.produce(batch())
    located = leader.locate(0)
    assert (located.error, located.position, located.high_watermark, located.log_start_offset) == (0, 0, 2, 0)
    assert located.length == len(batch(b"a", b"b"))
    assert (leader.locate(2).error, leader.locate(2).length) == (0, 0)
    assert leader.locate(4).error == ErrorCode.OFFSET_OUT_OF_RANGE
    assert leader.locate(-1).error == ErrorCode.OFFSET_OUT_OF_RANGE


def test_clients_of_another_epoch_are_told_so(tmp_path: Path) -> None:
    partition = Partition(tmp_path, {})
    partition.lead()
    partition.send(BROKER, BecomeLeader(5, {}))
    for epoch, error in ((4, ErrorCode.FENCED_LEADER_EPOCH), (5, 0), (6, ErrorCode.UNKNOWN_LEADER_EPOCH), (-1, 0)):
        assert partition.locate(0, epoch=epoch).error == error
        assert partition.list_offset(-1, epoch=epoch).error == error
        assert partition.epoch_end(5, current=epoch).error == error


def test_where_an_epoch_ended_and_where_a_reader_s_log_parts_from_ours(tmp_path: Path) -> None:
    """KIP-320, KIP-595: epoch 0 wrote offsets 0 to 2, epoch 4 wrote 3 and 4."""
    partition = Partition(tmp_path, {"fsync": "always"})
    partition.lead()
    partition.produce(batch(b"a", b"b", b"c"))
    partition.send(BROKER, BecomeLeader(4, partition.config))
    partition.produce(batch(b"d", b"e"))
    ends = [(end.leader_epoch, end.end_offset) for end in map(partition.epoch_end, (0, 3, 4, 5, -1))]
    assert ends == [(0, 3), (0, 3), (4, 5), (-1, -1), (-1, -1)]
    for offset, epoch, diverging in ((2, 0, (-1, -1)), (3, 0, (-1, -1)), (4, 0, (0, 3)), (5, 3, (0, 3)), (5, 4, (-1, -1))):
        located = partition.locate(offset, last_fetched_epoch=epoch)
        assert (located.error, located.diverging_epoch, located.diverging_end_offset) == (0, *diverging)
        assert located.high_watermark == 5 and (located.length > 0) == (offset < 5 and diverging == (-1, -1))
    assert partition.locate(5, last_fetched_epoch=5).error == ErrorCode.OFFSET_OUT_OF_RANGE
    assert partition.locate(-1, last_fetched_epoch=0).error == ErrorCode.OFFSET_OUT_OF_RANGE


def test_offsets_are_found_by_time(leader: Partition) -> None:
    for timestamp in (NOW_MS - 20, NOW_MS, NOW_MS - 10):
        leader.produce(batch(timestamp=timestamp))
        leader.flush()
    leader.produce(batch(timestamp=NOW_MS + 5))  # not committed
    found = [leader.list_offset(timestamp) for timestamp in (0, NOW_MS - 20, NOW_MS - 15, NOW_MS, NOW_MS + 1)]
    assert [(listed.timestamp_ms, listed.offset, listed.leader_epoch) for listed in found] == [
        (NOW_MS - 20, 0, 0), (NOW_MS - 20, 0, 0), (NOW_MS, 1, 0), (NOW_MS, 1, 0), (-1, -1, -1)]


def test_the_ends_and_the_largest_timestamp_are_found(leader: Partition) -> None:
    def listed(timestamp_ms: int, isolation: int = 0) -> tuple[int, int, int]:
        answer = leader.list_offset(timestamp_ms, isolation=isolation)
        assert not answer.error
        return answer.timestamp_ms, answer.offset, answer.leader_epoch

    assert listed(-3) == (-1, -1, -1)
    leader.produce(batch(timestamp=NOW_MS + 7), batch(timestamp=NOW_MS))
    leader.flush()
    assert listed(-2) == (-1, 0, 0)
    assert listed(-1) == listed(-1, isolation=1) == (-1, 2, 0)
    assert listed(-3) == (NOW_MS + 7, 0, 0)
    assert listed(-4) == listed(-2)
    assert listed(-5) == listed(-6) == (-1, -1, -1)  # nothing is tiered
    assert leader.list_offset(-7).error == ErrorCode.UNSUPPORTED_VERSION


def test_after_an_election_the_latest_offset_is_told_once_it_cannot_go_back(leader: Partition) -> None:
    """KIP-207: until the high watermark is at the epoch's start, ListOffsets would seem to go back."""
    leader.produce(batch())
    leader.send(BROKER, BecomeLeader(1, {"fsync": "always"}))
    assert leader.list_offset(-1).error == ErrorCode.OFFSET_NOT_AVAILABLE
    assert leader.list_offset(0).error == ErrorCode.OFFSET_NOT_AVAILABLE
    assert leader.list_offset(-2).error == 0
    leader.flush()
    assert (leader.list_offset(-1).offset, leader.list_offset(-1).leader_epoch) == (1, 1)


# -- configuration, retention ------------------------------------------------------------------------


def test_a_changed_configuration_holds_from_the_next_turn_on(leader: Partition) -> None:
    large = batch(bytes(2000))
    leader.send(BROKER, ConfigChanged({"fsync": "always", "max.message.bytes": "1000"}))
    assert errors(leader.produce(large)) == [ErrorCode.MESSAGE_TOO_LARGE]
    leader.send(BROKER, ConfigChanged({"fsync": "always"}))
    leader.produce(large)
    assert offsets(leader.flush()) == [0]


def test_a_stricter_fsync_catches_up_and_the_high_watermark_stays(tmp_path: Path) -> None:
    partition = Partition(tmp_path, {"fsync": "os"})
    partition.lead()
    partition.auto_flush = False
    partition.produce(batch())
    assert partition.send(BROKER, ConfigChanged({"fsync": "always"})) == []
    assert partition.list_offset(-1).offset == 1 and len(partition.flushes) == 1
    partition.produce(batch())
    assert partition.flush() == []
    assert offsets(partition.flush()) == [1]


def test_a_laxer_fsync_answers_what_waits(leader: Partition) -> None:
    leader.produce(batch())
    assert offsets(leader.send(BROKER, ConfigChanged({"fsync": "os"}))) == [0]


def test_old_segments_go_and_their_files_a_while_later(tmp_path: Path) -> None:
    partition = Partition(tmp_path, {
        "segment.bytes": "1048576", "retention.bytes": "1500000", "file.delete.delay.ms": "60000",
        "log.retention.check.interval.ms": "10000"})
    partition.lead()
    for _ in range(5):
        partition.produce(batch(bytes(600_000)))

    def files(suffix: str) -> int:
        return len(list(partition.directory.glob("*" + suffix)))

    assert files(".log") == 5
    advanced = only(partition.pass_time(10), Advanced)
    assert advanced.log_start_offset == 2 and advanced.high_watermark == 5
    assert (files(".log"), files(".log.deleted")) == (3, 2)
    assert partition.locate(1).error == ErrorCode.OFFSET_OUT_OF_RANGE
    assert partition.list_offset(-2).offset == 2
    assert bodies(partition.pass_time(61), Advanced) == []
    assert files(".deleted") == 0 and files(".log") == 3


@pytest.mark.parametrize("question", [ListOffset(7, -2, -1, 0), Locate(7, 2, 1000, -1, 0)])
def test_the_broker_knows_of_a_new_log_start_before_an_answer_shows_it(
    tmp_path: Path, question: ListOffset | Locate
) -> None:
    partition = Partition(tmp_path, {"segment.bytes": "1048576", "retention.bytes": "1500000"})
    partition.lead()
    for _ in range(5):
        partition.produce(batch(bytes(600_000)))
    mails = Mail(Peer("shell", 0), TimerFired(RETENTION_TIMER)), Mail(BROKER, question)
    [advanced, answer] = [effect.body for effect in partition.turn(*mails) if isinstance(effect, Send)]
    assert isinstance(advanced, Advanced) and advanced.log_start_offset == 2
    assert isinstance(answer, OffsetListed | Located) and not answer.error


# -- the broker comes and goes -----------------------------------------------------------------------


def test_a_new_broker_process_is_told_the_epoch_and_not_answered_what_the_old_one_asked(leader: Partition) -> None:
    leader.produce(batch())
    leader.send(SUPERVISOR, ActorDown(*BROKER))
    new = Peer("broker 1", 4)
    assert leader.link(new) == [Send(new, ReplicaUp("orders", 0, TOPIC_ID, 0))]
    assert bodies(leader.flush(), Produced) == []
    effects = leader.send(new, BecomeLeader(0, leader.config))
    assert only(effects, Serving) and only(effects, Advanced).high_watermark == 1
    leader.turn(leader.mail(batch(), sender=BROKER), leader.mail(batch(), sender=new))
    assert offsets(leader.flush()) == [1]  # what came late from the dead one is not done


def test_other_actors_are_none_of_its_business(leader: Partition) -> None:
    assert leader.send(SUPERVISOR, ActorUp("broker 2", 1, "ipc://x"), ActorDown("broker 2", 1)) == []
    leader.produce(batch())
    assert offsets(leader.flush()) == [0]


def test_a_broker_that_takes_no_mail_any_more_means_a_new_start(leader: Partition) -> None:
    assert exit_of(leader.send(SUPERVISOR, PeerGone(Peer("broker 1", 2)))) is None
    end = exit_of(leader.send(SUPERVISOR, PeerGone(BROKER)))
    assert end is not None and end.code != 0


# -- stopping ----------------------------------------------------------------------------------------


def test_a_stop_flushes_answers_and_takes_no_more(leader: Partition) -> None:
    leader.produce(batch())
    leader.produce(batch())
    effects = leader.send(SUPERVISOR, Shutdown())
    assert exit_of(effects) is None
    assert errors(leader.produce(batch())) == [ErrorCode.NOT_LEADER_OR_FOLLOWER]
    effects = leader.flush()
    assert offsets(effects) == [0]
    leader.auto_flush = True
    effects = leader.flush()
    assert offsets(effects) == [1] and exit_of(effects) == Exit(0, "shutdown")


def test_a_log_that_was_stopped_opens_where_it_was(tmp_path: Path) -> None:
    partition = Partition(tmp_path, {"fsync": "os"})
    partition.lead()
    partition.produce(batch(b"a", b"b"))
    partition.stop()
    again = Partition(tmp_path, {"fsync": "os"})
    assert only(again.lead(epoch=4), Advanced).high_watermark == 2
    assert repr(again.actor) == "<Partition orders-0 leader epoch=4 end=2 hw=2>"
    assert again.locate(0).length == len(batch(b"a", b"b"))
    assert again.list_offset(0).leader_epoch == 0


def test_a_failed_flush_while_stopping_is_no_clean_stop(leader: Partition) -> None:
    leader.produce(batch())
    leader.send(SUPERVISOR, Shutdown())
    end = exit_of(leader.fail_flush())
    assert end is not None and end.code != 0


def test_empty_mail_is_nothing(leader: Partition) -> None:
    assert leader.turn(Mail(BROKER, Produce([]), NO_RECORDS)) == [] and not leader.flushes
