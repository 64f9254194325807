"""The group coordinator, driven with mail and flushes on a real disk: what it answers when, and what a restart remembers."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from tests.unit.disks import FullableDisk
from tests.unit.drive import SHELL, bodies, exit_of, only
from tests.unit.drive_groups import BROKER, NOTHING, ORDERS, SUPERVISOR, Coordinator, commit
from tests.unit.drive_partition import batch
from tests.unit.memory_disk import MemoryDisk, PowerCut
from zafka.actors.actor import Exit, Mail, Now, Peer, TimerFired
from zafka.actors.direct import AnswerDirect, DirectProduce
from zafka.actors.messages import (
    ActorDown,
    ActorUp,
    Advanced,
    BecomeLeader,
    DiskFault,
    ListOffset,
    OffsetListed,
    Produce,
    Produced,
    ProduceItem,
    ReplicaUp,
    Shutdown,
    TopicsTold,
)
from zafka.actors.partition import DISK_FAULT_EXIT
from zafka.transport.kafka import messages as kafka
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages import join_group, sync_group


def test_a_committed_offset_is_told_and_another_group_has_none(tmp_path: Path) -> None:
    coordinator = Coordinator(tmp_path).lead()
    assert coordinator.fetch("g") == NOTHING
    assert coordinator.commit("g", 42) == 0
    assert (coordinator.fetch("g"), coordinator.fetch("h"), coordinator.fetch("g", partition=1)) == (42, NOTHING, NOTHING)


def test_a_commit_is_answered_when_it_is_on_disk_and_what_it_shows_too(tmp_path: Path) -> None:
    coordinator = Coordinator(tmp_path, auto_flush=False).lead()
    assert coordinator.answers(coordinator.turn(coordinator.mail(ApiKey.OFFSET_COMMIT, 9, commit("g", 42)))) == []
    asked = kafka.OffsetFetchRequest([kafka.OffsetFetchRequestGroup("g", topics=None)])
    assert coordinator.answers(coordinator.turn(coordinator.mail(ApiKey.OFFSET_FETCH, 9, asked))) == []
    answers = coordinator.answers(coordinator.flush())
    assert len(answers) == 2
    assert answers[0].topics[0].partitions[0].error_code == 0
    assert answers[1].groups[0].topics[0].partitions[0].committed_offset == 42


def test_members_are_told_of_their_shares_when_these_are_on_disk(tmp_path: Path) -> None:
    """Else the next coordinator would share anew in a generation that somebody has his share of."""
    coordinator = Coordinator(tmp_path, auto_flush=False, group_initial_rebalance_delay_ms="0").lead()
    join = kafka.JoinGroupRequest(
        "g", 6000, 6000, protocol_type="consumer", protocols=[join_group.JoinGroupRequestProtocol("range", b"")])
    effects = coordinator.turn(coordinator.mail(ApiKey.JOIN_GROUP, 3, join))
    effects += coordinator.pass_time(1)
    while coordinator.flushes:
        effects += coordinator.flush()
    (joined,) = coordinator.answers(effects)
    share = sync_group.SyncGroupRequestAssignment(joined.member_id, b"mine")
    sync = kafka.SyncGroupRequest("g", joined.generation_id, joined.member_id, assignments=[share])
    assert coordinator.answers(coordinator.turn(coordinator.mail(ApiKey.SYNC_GROUP, 3, sync))) == []
    (synced,) = coordinator.answers(coordinator.flush())
    assert (synced.error_code, synced.assignment) == (0, b"mine")


def test_all_that_one_turn_decides_is_one_batch_and_one_flush(tmp_path: Path) -> None:
    coordinator = Coordinator(tmp_path, auto_flush=False).lead()
    coordinator.turn(*(coordinator.mail(ApiKey.OFFSET_COMMIT, 9, commit(f"g{i}", i)) for i in range(50)))
    assert len(coordinator.flushes) == 1
    effects = coordinator.flush()
    assert len(coordinator.answers(effects)) == 50
    log = coordinator.coordinator.replica.log
    assert (log.end_offset, len(bodies(effects, Advanced))) == (50, 0)


def test_a_restart_remembers_every_offset(tmp_path: Path) -> None:
    coordinator = Coordinator(tmp_path).lead()
    for partition in range(3):
        for offset in range(5):
            coordinator.commit("g", offset * 10 + partition, partition=partition, metadata=f"m{offset}", epoch=offset)
    coordinator.commit("h", 7, version=2, retention_time_ms=1000)
    coordinator.coordinator.replica.release()
    again = Coordinator(tmp_path).lead(1)
    found = again.fetch_all("g")
    assert {key: (part.committed_offset, part.metadata, part.committed_leader_epoch) for key, part in found.items()} == {
        ("orders", partition): (40 + partition, "m4", 4) for partition in range(3)}
    assert again.fetch("h") == 7


@pytest.mark.parametrize("seed", range(20))
def test_a_power_cut_takes_back_nothing_that_was_answered(tmp_path: Path, seed: int) -> None:
    """The disk forgets what was not flushed, at any of its calls."""
    random = Random(seed)
    disk = MemoryDisk(seed)
    committed: dict[str, int] = {}
    sent: dict[str, list[int]] = {}
    epoch = answered = 0
    for start in range(4):
        disk.calls_left = random.randrange(5, 120)
        try:
            coordinator = Coordinator(tmp_path, disk=disk)
            epoch += 1
            coordinator.lead(epoch - 1)
            for group, offset in committed.items():
                found = coordinator.fetch(group)
                assert found in [offset, *sent[group][sent[group].index(offset):]], f"seed {seed}"
            for number in range(200):
                group = f"g{random.randrange(3)}"
                offset = start * 1000 + number
                sent.setdefault(group, []).append(offset)
                assert coordinator.commit(group, offset) == 0
                committed[group] = offset
                answered += 1
        except PowerCut:
            pass
        disk.power_cut()
    assert answered


def test_a_full_disk_takes_back_what_was_decided_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    disk = FullableDisk()
    coordinator = Coordinator(tmp_path, disk=disk).lead()
    assert coordinator.commit("g", 1) == 0
    disk.full = True
    assert coordinator.ask(ApiKey.OFFSET_COMMIT, 9, commit("g", 2)) == ErrorCode.COORDINATOR_NOT_AVAILABLE
    asked = kafka.OffsetFetchRequest([kafka.OffsetFetchRequestGroup("g", topics=None)])
    assert coordinator.ask(ApiKey.OFFSET_FETCH, 9, asked) == ErrorCode.COORDINATOR_NOT_AVAILABLE
    coordinator.pass_time(1.1)
    assert coordinator.fetch("g") == 1
    assert coordinator.ask(ApiKey.OFFSET_COMMIT, 9, commit("g", 4)) == ErrorCode.COORDINATOR_NOT_AVAILABLE
    disk.full = False
    coordinator.pass_time(1.1)
    assert coordinator.commit("g", 5) == 0
    assert coordinator.fetch("g") == 5


def test_a_failed_flush_is_a_disk_fault_as_of_any_partition(tmp_path: Path) -> None:
    coordinator = Coordinator(tmp_path, auto_flush=False).lead()
    coordinator.turn(coordinator.mail(ApiKey.OFFSET_COMMIT, 9, commit("g", 42)))
    effects = coordinator.fail_flush()
    assert coordinator.answers(effects) == []
    assert only(effects, DiskFault).partition == 0
    stopped = exit_of(effects)
    assert stopped is not None and stopped.code == DISK_FAULT_EXIT
    coordinator.coordinator.replica.release()
    start = Coordinator(tmp_path, disk=coordinator.disk)
    start_effects = [*start.start(), *start.send(SUPERVISOR, ActorUp(BROKER.name, BROKER.incarnation, "ipc://x"))]
    assert only(start_effects, ReplicaUp).fault


def test_a_record_that_no_coordinator_wrote_keeps_the_replica_offline(tmp_path: Path) -> None:
    coordinator = Coordinator(tmp_path).lead()
    coordinator.commit("g", 1)
    log_file = next(coordinator.directory.glob("*.log"))
    actor = coordinator.coordinator
    actor._outbox.append(b"\0\1\0\5gro", b"\0\3")  # a key that ends within the group's name
    coordinator.turn()
    actor.replica.release()
    again = Coordinator(tmp_path)
    again.start()
    up = only(again.send(SUPERVISOR, ActorUp(BROKER.name, BROKER.incarnation, "ipc://x")), ReplicaUp)
    assert "no coordinator's" in up.fault
    assert log_file.exists()


def test_records_of_kinds_that_are_not_known_are_passed_over(tmp_path: Path) -> None:
    coordinator = Coordinator(tmp_path).lead()
    coordinator.commit("g", 1)
    coordinator.coordinator._outbox.append(b"\0\x63what", b"\0\0ever")
    coordinator.turn()
    coordinator.coordinator.replica.release()
    assert Coordinator(tmp_path).lead(1).fetch("g") == 1


def test_clients_cannot_write_to_it_but_read_it(tmp_path: Path) -> None:
    coordinator = Coordinator(tmp_path).lead()
    coordinator.commit("g", 1)
    data = batch(b"x")
    effects = coordinator.turn(Mail(BROKER, Produce([ProduceItem(77, -1, len(data))]), memoryview(data)))
    (answer,) = only(effects, Produced).answers
    assert (answer.request_id, answer.error) == (77, ErrorCode.INVALID_TOPIC_EXCEPTION)
    assert answer.message == "Cannot append to internal topic __consumer_offsets"
    straight = Mail(SHELL, DirectProduce(ProduceItem(78, -1, len(data)), 0), memoryview(data))
    ((refused,),) = [effect.answers for effect in coordinator.turn(straight) if isinstance(effect, AnswerDirect)]
    assert (refused.request_id, refused.error) == (78, ErrorCode.INVALID_TOPIC_EXCEPTION)
    assert only(coordinator.send(BROKER, ListOffset(9, -1, -1, 0)), OffsetListed).offset == 1


def test_a_broker_that_is_gone_is_owed_no_answer(tmp_path: Path) -> None:
    coordinator = Coordinator(tmp_path, auto_flush=False).lead()
    coordinator.turn(coordinator.mail(ApiKey.OFFSET_COMMIT, 9, commit("g", 42)))
    coordinator.send(SUPERVISOR, ActorDown(BROKER.name, BROKER.incarnation))
    newer = Peer(BROKER.name, BROKER.incarnation + 1)
    coordinator.send(SUPERVISOR, ActorUp(newer.name, newer.incarnation, "ipc://x"))
    assert coordinator.answers(coordinator.flush()) == []
    coordinator.auto_flush = True
    asked = kafka.OffsetFetchRequest([kafka.OffsetFetchRequestGroup("g", topics=None)])
    (answer,) = coordinator.answers(coordinator.turn(coordinator.mail(ApiKey.OFFSET_FETCH, 9, asked, sender=newer)))
    assert answer.groups[0].topics[0].partitions[0].committed_offset == 42


def test_another_broker_than_its_own_is_not_heard(tmp_path: Path) -> None:
    coordinator = Coordinator(tmp_path).lead()
    stranger = Peer(BROKER.name, BROKER.incarnation - 1)
    late = coordinator.mail(ApiKey.OFFSET_COMMIT, 9, commit("g", 42), sender=stranger)
    assert coordinator.answers(coordinator.turn(late)) == []
    assert coordinator.fetch("g") == NOTHING


def test_what_comes_before_the_shutdown_is_answered_and_what_comes_behind_it_is_refused(tmp_path: Path) -> None:
    coordinator = Coordinator(tmp_path, auto_flush=False).lead()
    coordinator.turn(coordinator.mail(ApiKey.OFFSET_COMMIT, 9, commit("g", 1)))
    before = coordinator.mail(ApiKey.OFFSET_COMMIT, 9, commit("g", 2))
    behind = coordinator.mail(ApiKey.OFFSET_COMMIT, 9, commit("g", 3))
    refused = coordinator.answers(coordinator.turn(before, Mail(SUPERVISOR, Shutdown()), behind))
    assert refused == [ErrorCode.NOT_COORDINATOR]
    coordinator.auto_flush = True
    effects = coordinator.flush()
    assert [answer.topics[0].partitions[0].error_code for answer in coordinator.answers(effects)] == [0, 0]
    assert exit_of(effects) == Exit(0, "shutdown")
    assert Coordinator(tmp_path).lead(1).fetch("g") == 2


# -- topics --------------------------------------------------------------------------------------


def test_offsets_go_with_their_topic(tmp_path: Path) -> None:
    coordinator = Coordinator(tmp_path).lead(0, ORDERS, ("other", b"t" * 16, 1))
    coordinator.commit("g", 1)
    coordinator.commit("g", 2, topic="other")
    coordinator.send(BROKER, TopicsTold([ORDERS]))
    assert list(coordinator.fetch_all("g")) == [("orders", 0)]
    coordinator.coordinator.replica.release()
    assert list(Coordinator(tmp_path).lead(1).fetch_all("g")) == [("orders", 0)]


def test_a_topic_that_is_created_anew_has_no_offsets(tmp_path: Path) -> None:
    coordinator = Coordinator(tmp_path).lead()
    coordinator.commit("g", 1)
    coordinator.send(BROKER, TopicsTold([("orders", b"n" * 16, 3)]))
    assert coordinator.fetch("g") == NOTHING
    assert coordinator.commit("g", 3) == 0
    assert coordinator.fetch("g") == 3


def test_neither_has_one_that_was_while_the_coordinator_was_away(tmp_path: Path) -> None:
    coordinator = Coordinator(tmp_path).lead()
    coordinator.commit("g", 1)
    coordinator.coordinator.replica.release()
    again = Coordinator(tmp_path).lead(1, ("orders", b"n" * 16, 3))
    assert again.fetch("g") == NOTHING
    again.coordinator.replica.release()
    assert Coordinator(tmp_path).lead(2, ("more", b"m" * 16, 3)).fetch_all("g") == {}


MODERN = kafka.ConsumerGroupHeartbeatRequest(
    "modern", "m", 0, topic_partitions=[], rebalance_timeout_ms=5000, subscribed_topic_names=["orders"])


def late(coordinator: Coordinator, *mails: Mail) -> list[object]:
    """A turn after the disk has held the process for a minute: timers are long due, and this mail has waited. What is answered."""
    now = coordinator.now
    coordinator.now = Now(now.monotonic_s + 60, now.wall_ms + 60_000)
    fired = [Mail(SHELL, TimerFired(name)) for name in coordinator.timers if " session " in name]
    assert fired
    return coordinator.answers(coordinator.turn(*fired, *mails))


def test_who_was_not_heard_because_the_disk_was_slow_is_a_member_still(tmp_path: Path) -> None:
    coordinator = Coordinator(tmp_path, group_initial_rebalance_delay_ms="0").lead()
    assert coordinator.ask(ApiKey.CONSUMER_GROUP_HEARTBEAT, 1, MODERN).member_epoch == 2
    beats = kafka.ConsumerGroupHeartbeatRequest("modern", "m", 2)
    (answer,) = late(coordinator, coordinator.mail(ApiKey.CONSUMER_GROUP_HEARTBEAT, 1, beats))
    assert (answer.error_code, answer.member_epoch) == (0, 2)
    assert late(coordinator) == []
    assert coordinator.ask(ApiKey.CONSUMER_GROUP_HEARTBEAT, 1, beats).error_code == ErrorCode.UNKNOWN_MEMBER_ID


def test_an_id_that_was_given_holds_while_the_disk_was_slow(tmp_path: Path) -> None:
    coordinator = Coordinator(tmp_path, group_initial_rebalance_delay_ms="0").lead()
    join = kafka.JoinGroupRequest(
        "g", 6000, 6000, protocol_type="consumer", protocols=[join_group.JoinGroupRequestProtocol("range", b"")])
    told = coordinator.ask(ApiKey.JOIN_GROUP, 4, join)
    assert told.error_code == ErrorCode.MEMBER_ID_REQUIRED
    join.member_id = told.member_id
    (answer,) = late(coordinator, coordinator.mail(ApiKey.JOIN_GROUP, 4, join)) or coordinator.answers(coordinator.pass_time(0.1))
    assert (answer.error_code, answer.generation_id) == (0, 1)


def test_who_could_not_be_heard_because_the_broker_was_gone_is_a_member_still(tmp_path: Path) -> None:
    """Of both protocols, for a session from when a broker serves again; and no longer."""
    coordinator = Coordinator(tmp_path, group_initial_rebalance_delay_ms="0").lead()
    coordinator.ask(ApiKey.CONSUMER_GROUP_HEARTBEAT, 1, MODERN)
    join = kafka.JoinGroupRequest(
        "classic", 6000, 6000, protocol_type="consumer", protocols=[join_group.JoinGroupRequestProtocol("range", b"")])
    coordinator.turn(coordinator.mail(ApiKey.JOIN_GROUP, 3, join))
    (joined,) = coordinator.answers(coordinator.pass_time(0.1))
    assignments = [sync_group.SyncGroupRequestAssignment(joined.member_id, b"all")]
    coordinator.ask(ApiKey.SYNC_GROUP, 3, kafka.SyncGroupRequest("classic", 1, joined.member_id, assignments=assignments))

    coordinator.send(SUPERVISOR, ActorDown(BROKER.name, BROKER.incarnation))
    coordinator.pass_time(60)
    newer = Peer(BROKER.name, BROKER.incarnation + 1)
    coordinator.send(SUPERVISOR, ActorUp(newer.name, newer.incarnation, "ipc://x"))
    coordinator.pass_time(60)  # it has not read yet who leads
    coordinator.send(newer, BecomeLeader(0, coordinator.config))
    coordinator.pass_time(5)

    def beat() -> list[int]:
        modern = kafka.ConsumerGroupHeartbeatRequest("modern", "m", 2)
        mails = [
            coordinator.mail(ApiKey.CONSUMER_GROUP_HEARTBEAT, 1, modern, sender=newer),
            coordinator.mail(ApiKey.HEARTBEAT, 3, kafka.HeartbeatRequest("classic", 1, joined.member_id), sender=newer)]
        return [answer.error_code for answer in coordinator.answers(coordinator.turn(*mails))]

    assert beat() == [0, 0]
    coordinator.pass_time(60)
    assert beat() == [ErrorCode.UNKNOWN_MEMBER_ID] * 2
