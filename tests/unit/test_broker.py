"""The broker between supervisor, coordinator and its replicas."""

from __future__ import annotations

import base64
from pathlib import Path

from tests.unit.broker_bench import BROKER_ID, COORDINATOR, INCARNATION, SUPERVISOR, Bench, advanced, topic_id
from tests.unit.drive import exit_of
from zafka.actors import cluster_state as cs, messages
from zafka.actors.actor import Mail, Peer, PeerGone
from zafka.actors.cluster_snapshot import sections_of
from zafka.actors.gateway.effects import CloseDoors, OpenDoors, RemoveDirectory
from zafka.transport.kafka.errors import ErrorCode


def test_a_broker_asks_what_runs_registers_and_reads_the_cluster(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    assert bench.sent(messages.WhichChildren)
    bench.tell(SUPERVISOR, messages.ActorUp(*COORDINATOR, "ipc://c"))
    (register,) = bench.sent(messages.RegisterBroker)
    assert (register.broker_id, register.incarnation, register.rack) == (BROKER_ID, INCARNATION, "a")
    assert [endpoint.name for endpoint in register.endpoints] == ["kafka", "outside", "zmq"]
    assert bench.sent(messages.ReadCluster) == [messages.ReadCluster(0)]
    bench.tell(COORDINATOR, messages.BrokerRegistered("c"))
    bench.commit(cs.ClusterCreated("c"))
    assert bench.sent(messages.ReadCluster) == [messages.ReadCluster(1)]


def test_nothing_is_started_before_the_broker_has_caught_up_and_knows_what_runs(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.tell(SUPERVISOR, messages.ActorUp(*COORDINATOR, "ipc://c"))
    bench.create("t")
    assert not bench.sent(messages.StartPartition)
    bench.commit(cs.BrokerRegistered(BROKER_ID, INCARNATION, "a", []))
    assert not bench.sent(messages.StartPartition)
    bench.tell(SUPERVISOR, messages.ChildrenTold([]))
    assert bench.sent(messages.StartPartition) == [messages.StartPartition("t", 0, topic_id("t"), {})]


def test_running_replicas_are_not_started_again_and_unwanted_ones_are_stopped(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.create("kept")
    bench.start(running=[("kept", 0), ("gone", 2)])
    assert not bench.sent(messages.StartPartition)
    assert bench.sent(messages.StopPartition) == [messages.StopPartition("gone", 2)]


def test_a_replica_that_was_being_stopped_keeps_its_directory_until_it_is_dead(tmp_path: Path) -> None:
    """The broker that asked for its end was killed meanwhile."""
    (tmp_path / "t-0").mkdir()
    encoded = base64.urlsafe_b64encode(topic_id("t")).decode().rstrip("=")
    (tmp_path / "t-0" / "partition.metadata").write_text(f"version: 0\ntopic_id: {encoded}")
    bench = Bench(tmp_path)
    bench.create("t")
    bench.commit(cs.TopicDeleted(topic_id("t")))
    bench.tell(SUPERVISOR, messages.ChildrenTold([], [("t", 0)]))
    bench.start()
    assert (tmp_path / "t-0").exists() and not bench.sent(messages.StopPartition)
    bench.tell(SUPERVISOR, messages.PartitionStopped("t", 0))
    assert not (tmp_path / "t-0").exists()
    assert len(bench.of(RemoveDirectory)) == 1


def test_a_replica_leads_only_in_an_epoch_that_is_committed(tmp_path: Path) -> None:
    bench = Bench(tmp_path).start()
    bench.create("t")
    peer = bench.up("t")
    assert bench.sent(messages.ClaimLeadership) == [
        messages.ClaimLeadership([(topic_id("t"), 0, peer.incarnation)])]
    assert not bench.sent(messages.BecomeLeader)
    bench.lead("t", epoch=4)
    assert [(send.to, send.body.leader_epoch) for send in bench.sends(messages.BecomeLeader)] == [(peer, 4)]
    route = bench.gateway.routes.find("t", 0)
    assert route is not None and route.refusal
    bench.tell(peer, messages.Serving(4), advanced(0, 0, epoch=4))
    assert not route.refusal


def test_claims_of_one_turn_leave_together_and_again_for_the_next_coordinator(tmp_path: Path) -> None:
    bench = Bench(tmp_path).start()
    bench.create("t", partitions=2)
    ups = [messages.ReplicaUp("t", index, topic_id("t"), -1) for index in (0, 1)]
    peers = [Peer("partition t-0", 5), Peer("partition t-1", 6)]
    bench.turn(Mail(peers[0], ups[0]), Mail(peers[1], ups[1]))
    (claim,) = bench.sent(messages.ClaimLeadership)
    assert len(claim.claims) == 2
    bench.tell(SUPERVISOR, messages.ActorDown(*COORDINATOR))
    successor = Peer("coordinator", 8)
    bench.tell(SUPERVISOR, messages.ActorUp(*successor, "ipc://d"))
    assert bench.sent(messages.ReadCluster) == [messages.ReadCluster(3)]
    bench.tell(successor, messages.BrokerRegistered("cluster"))
    assert bench.sent(messages.ClaimLeadership) == [claim]


def test_after_a_restart_of_the_broker_a_leader_goes_on_without_a_new_claim(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.create("t")
    bench.partitions["t", 0] = Peer("partition t-0", 5)
    bench.lead("t", epoch=2)
    bench.start(running=[("t", 0)])
    bench.tell(Peer("partition t-0", 5), messages.ReplicaUp("t", 0, topic_id("t"), 2))
    assert not bench.sent(messages.ClaimLeadership)
    assert [body.leader_epoch for body in bench.sent(messages.BecomeLeader)] == [2]


def test_a_new_incarnation_of_a_partition_claims_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path).start("t")
    bench.down("t")
    route = bench.gateway.routes.find("t", 0)
    assert route is not None and route.refusal
    bench.up("t")
    assert len(bench.sent(messages.ClaimLeadership)) == 1
    bench.lead("t", epoch=1)
    assert [body.leader_epoch for body in bench.sent(messages.BecomeLeader)] == [1]


def test_mail_of_a_replaced_incarnation_changes_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path).start()
    bench.create("t")
    old = bench.up("t")
    new = bench.up("t")
    bench.tell(SUPERVISOR, messages.ActorDown(*old))
    bench.lead("t")
    bench.tell(old, messages.Serving(0), advanced(9, 9))
    route = bench.gateway.routes.find("t", 0)
    assert route is not None and route.refusal
    bench.tell(new, messages.Serving(0), advanced(1, 70))
    assert route.advanced.high_watermark == 1


def test_a_deleted_topic_is_stopped_then_its_directory_moved_aside(tmp_path: Path) -> None:
    bench = Bench(tmp_path).start("t")
    write_metadata(tmp_path / "t-0", topic_id("t"))
    bench.commit(cs.TopicDeleted(topic_id("t")))
    assert bench.sent(messages.StopPartition) == [messages.StopPartition("t", 0)]
    assert (tmp_path / "t-0").exists()
    bench.tell(SUPERVISOR, messages.PartitionStopped("t", 0))
    aside = tmp_path / f"t-0.{topic_id('t').hex()}-delete"
    assert bench.of(RemoveDirectory) == [RemoveDirectory(aside)]
    assert aside.exists() and not (tmp_path / "t-0").exists()


def test_a_topic_of_the_same_name_starts_after_the_old_one_is_gone(tmp_path: Path) -> None:
    bench = Bench(tmp_path).start("t")
    write_metadata(tmp_path / "t-0", topic_id("t"))
    again = cs.TopicCreated(b"2" * 16, "t", [[BROKER_ID]])
    bench.commit(cs.TopicDeleted(topic_id("t")), again)
    assert bench.sent(messages.StopPartition) and not bench.sent(messages.StartPartition)
    bench.tell(SUPERVISOR, messages.PartitionStopped("t", 0))
    assert bench.of(RemoveDirectory)
    assert [body.topic_id for body in bench.sent(messages.StartPartition)] == [b"2" * 16]


def test_directories_that_no_topic_wants_are_swept_once_caught_up(tmp_path: Path) -> None:
    for name, owner in (("t-0", "t"), ("old-1", "old"), ("x-2.abc-delete", "x")):
        write_metadata(tmp_path / name, topic_id(owner))
    (tmp_path / "not-ours").mkdir()
    (tmp_path / "mine-1").mkdir()  # looks like a partition, but has no partition.metadata
    write_metadata(tmp_path / "foreign-0", topic_id("foreign"))  # the cluster's log never had it
    bench = Bench(tmp_path)
    bench.create("t")
    for gone in ("old", "x"):
        bench.create(gone)
        bench.commit(cs.TopicDeleted(topic_id(gone)))
    bench.start()
    removed = {effect.path.name for effect in bench.of(RemoveDirectory)}
    assert removed == {f"old-1.{topic_id('old').hex()}-delete", "x-2.abc-delete"}
    assert {path.name for path in tmp_path.iterdir()} == removed | {"t-0", "not-ours", "mine-1", "foreign-0"}


def test_a_topic_configuration_reaches_the_replica_with_the_defaults_below_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path, defaults={"retention.ms": "1", "segment.bytes": "2000000"}).start("t")
    bench.commit(cs.TopicConfigChanged(topic_id("t"), {"retention.ms": "7"}))
    (changed,) = bench.sent(messages.ConfigChanged)
    assert changed.config == {"retention.ms": "7", "segment.bytes": "2000000"}


def test_a_disk_fault_is_reported_until_it_is_committed(tmp_path: Path) -> None:
    bench = Bench(tmp_path).start("t")
    peer = bench.partitions["t", 0]
    bench.tell(peer, messages.DiskFault(topic_id("t"), 0, 77, "EIO"))
    assert bench.sent(messages.ReportFault) == [messages.ReportFault(topic_id("t"), 0, BROKER_ID, 77, "EIO")]
    bench.tell(SUPERVISOR, messages.ActorDown(*COORDINATOR), messages.ActorUp("coordinator", 8, "ipc://d"))
    bench.tell(Peer("coordinator", 8), messages.BrokerRegistered("cluster"))
    assert len(bench.sent(messages.ReportFault)) == 1


def test_a_replica_that_is_offline_is_not_claimed(tmp_path: Path) -> None:
    bench = Bench(tmp_path).start("t")
    bench.down("t")
    bench.commit(cs.ReplicaFaulted(topic_id("t"), 0, BROKER_ID, 77, "EIO"))
    bench.up("t", fault="EIO")
    assert not bench.sent(messages.ClaimLeadership)


def test_a_fault_that_is_told_before_the_topic_is_known_is_reported_once_it_is(tmp_path: Path) -> None:
    """A replica that outlived its broker, or the other way round: it links before the new broker has read the log."""
    bench = Bench(tmp_path)
    bench.create("t")
    bench.tell(Peer("partition t-0", 10), messages.ReplicaUp("t", 0, topic_id("t"), -1, "EIO"),
               messages.DiskFault(topic_id("t"), 0, -1, "EIO"))
    bench.start(running=[("t", 0)])
    assert not bench.sent(messages.ClaimLeadership)
    bench.tell(SUPERVISOR, messages.ActorDown(*COORDINATOR), messages.ActorUp("coordinator", 8, "ipc://d"))
    bench.tell(Peer("coordinator", 8), messages.BrokerRegistered("cluster"))
    assert bench.sent(messages.ReportFault) == [messages.ReportFault(topic_id("t"), 0, BROKER_ID, -1, "EIO")]
    route = bench.gateway.routes.find("t", 0)
    assert route is not None and route.refusal == ErrorCode.KAFKA_STORAGE_ERROR


def test_a_fault_that_is_not_committed_yet_keeps_the_next_incarnation_from_leading(tmp_path: Path) -> None:
    """The disk took no marker, so that it knows of nothing; and there was no coordinator to tell."""
    bench = Bench(tmp_path).start("t")
    bench.tell(SUPERVISOR, messages.ActorDown(*COORDINATOR))
    bench.tell(bench.partitions["t", 0], messages.DiskFault(topic_id("t"), 0, 77, "EIO"))
    bench.down("t")
    bench.up("t")
    bench.tell(SUPERVISOR, messages.ActorUp("coordinator", 8, "ipc://d"))
    bench.tell(Peer("coordinator", 8), messages.BrokerRegistered("cluster"))
    assert len(bench.sent(messages.ReportFault)) == 1 and not bench.sent(messages.ClaimLeadership)
    route = bench.gateway.routes.find("t", 0)
    assert route is not None and route.refusal == ErrorCode.KAFKA_STORAGE_ERROR


def test_a_fault_is_not_handed_on_to_a_topic_of_the_same_name(tmp_path: Path) -> None:
    bench = Bench(tmp_path).start("t")
    peer = bench.partitions["t", 0]
    bench.tell(SUPERVISOR, messages.ActorDown(*COORDINATOR))
    bench.tell(peer, messages.DiskFault(topic_id("t"), 0, 77, "EIO"))
    bench.tell(SUPERVISOR, messages.ActorUp(*COORDINATOR, "ipc://c"))
    bench.tell(COORDINATOR, messages.BrokerRegistered("cluster"))
    bench.commit(cs.TopicDeleted(topic_id("t")))
    bench.tell(SUPERVISOR, messages.PartitionStopped("t", 0))
    again = bytes(15) + b"t"
    bench.commit(cs.TopicCreated(again, "t", [[BROKER_ID]]))
    bench.up("t", topic_id=again)
    (claim,) = bench.sent(messages.ClaimLeadership)
    assert claim.claims[0][0] == again


def test_a_replica_that_is_offline_for_itself_is_refused_and_not_claimed(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.create("t")
    bench.start()
    bench.up("t", fault="another topic's directory")
    assert not bench.sent(messages.ClaimLeadership)
    route = bench.gateway.routes.find("t", 0)
    assert route is not None and route.refusal == ErrorCode.KAFKA_STORAGE_ERROR


def test_a_recovery_by_hand_is_committed_before_the_replica_may_lead(tmp_path: Path) -> None:
    bench = Bench(tmp_path).start("t")
    bench.down("t")
    bench.commit(cs.ReplicaFaulted(topic_id("t"), 0, BROKER_ID, 77, "EIO"))
    bench.up("t", recovered="4f2a")
    assert bench.sent(messages.ReportRecovered) == [messages.ReportRecovered(topic_id("t"), 0, BROKER_ID, "4f2a")]
    assert not bench.sent(messages.ClaimLeadership)
    bench.commit(cs.ReplicaRecovered(topic_id("t"), 0, BROKER_ID, "4f2a"))
    assert bench.sent(messages.ClaimLeadership)


def test_a_recovery_that_is_known_already_ends_no_later_fault(tmp_path: Path) -> None:
    bench = Bench(tmp_path).start("t")
    bench.down("t")
    bench.commit(cs.ReplicaRecovered(topic_id("t"), 0, BROKER_ID, "4f2a"))
    bench.up("t", recovered="4f2a")
    assert bench.sent(messages.ClaimLeadership) and not bench.sent(messages.ReportRecovered)
    bench.down("t")
    bench.commit(cs.ReplicaFaulted(topic_id("t"), 0, BROKER_ID, 99, "EIO"))
    bench.up("t", recovered="4f2a")
    assert not bench.sent(messages.ClaimLeadership) and not bench.sent(messages.ReportRecovered)


def test_a_partition_that_takes_no_mail_is_told_to_lead_again_after_a_while(tmp_path: Path) -> None:
    bench = Bench(tmp_path).start("t")
    peer = bench.partitions["t", 0]
    route = bench.gateway.routes.find("t", 0)
    assert route is not None
    bench.tell(SUPERVISOR, PeerGone(peer))
    assert route.refusal and not bench.sent(messages.BecomeLeader)
    bench.pass_time(0.3)
    assert [send.to for send in bench.sends(messages.BecomeLeader)] == [peer]
    bench.tell(peer, messages.Serving(0), advanced(4, 400))
    assert not route.refusal and route.advanced.high_watermark == 4


def test_when_mail_to_the_coordinator_was_lost_all_is_said_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path).start("t")
    bench.down("t")
    bench.up("t")
    (claim,) = bench.sent(messages.ClaimLeadership)
    bench.tell(SUPERVISOR, PeerGone(COORDINATOR))
    assert not bench.sent(messages.ReadCluster)
    bench.pass_time(0.3)
    assert bench.sent(messages.RegisterBroker)
    assert bench.sent(messages.ReadCluster) == [messages.ReadCluster(bench.actor.next_offset)]
    bench.tell(COORDINATOR, messages.BrokerRegistered("id"))
    assert bench.sent(messages.ClaimLeadership) == [claim]


def test_doors_open_when_everything_serves_or_after_a_while(tmp_path: Path) -> None:
    bench = Bench(tmp_path, topics=["t"])
    bench.create("t")
    bench.start()
    assert not bench.of(OpenDoors)
    late = Bench(tmp_path)
    late.create("t")
    late.start()
    late.pass_time(5)
    assert late.of(OpenDoors) and not late.sent(messages.Ready)
    bench.serve("t")
    assert bench.of(OpenDoors) and bench.sent(messages.Ready)


def test_ready_waits_for_the_topics_of_the_topology(tmp_path: Path) -> None:
    bench = Bench(tmp_path, topics=["t"]).start()
    assert bench.of(OpenDoors) and not bench.sent(messages.Ready)
    bench.create("t")
    bench.serve("t")
    assert bench.sent(messages.Ready)


def test_shutdown_closes_the_doors_and_ends_when_nobody_waits(tmp_path: Path) -> None:
    bench = Bench(tmp_path).start()
    bench.tell(SUPERVISOR, messages.Shutdown())
    assert bench.of(CloseDoors)
    assert exit_of(bench.effects).code == 0  # type: ignore[union-attr]


def write_metadata(directory: Path, owner: bytes) -> None:
    directory.mkdir()
    text = base64.urlsafe_b64encode(owner).rstrip(b"=").decode()
    (directory / "partition.metadata").write_text(f"version: 0\ntopic_id: {text}\n")


# -- snapshots of the cluster's log ------------------------------------------------------------------


def tell_snapshot(bench: Bench, next_offset: int, *events: cs.AnyEvent) -> None:
    """In place of the events before that offset."""
    state = cs.ClusterState()
    for event in events:
        state.apply(event)
    sections = [section for section, _ in sections_of(state)]
    told = messages.ClusterSnapshot(next_offset, next_offset, [len(section) for section in sections])
    bench.tell(COORDINATOR, told, records=b"".join(sections))
    bench.cluster_offset = next_offset


def test_a_broker_that_is_given_a_snapshot_starts_what_it_tells_and_reads_on_behind_it(tmp_path: Path) -> None:
    directory = tmp_path / "gone-0"
    directory.mkdir()
    encoded = base64.urlsafe_b64encode(topic_id("gone")).decode().rstrip("=")
    (directory / "partition.metadata").write_text(f"version: 0\ntopic_id: {encoded}")
    bench = Bench(tmp_path)
    bench.tell(SUPERVISOR, messages.ActorUp(*COORDINATOR, "ipc://c"))
    bench.tell(SUPERVISOR, messages.ChildrenTold([]))
    tell_snapshot(
        bench, 9000, cs.ClusterCreated("c"), cs.BrokerRegistered(BROKER_ID, INCARNATION, "a", []),
        cs.TopicCreated(topic_id("t"), "t", [[BROKER_ID]], {}), cs.TopicCreated(topic_id("gone"), "gone", [[BROKER_ID]], {}),
        cs.TopicDeleted(topic_id("gone")))
    assert bench.sent(messages.ReadCluster) == [messages.ReadCluster(9000)]
    assert bench.sent(messages.StartPartition) == [messages.StartPartition("t", 0, topic_id("t"), {})]
    assert not directory.exists(), "the snapshot knows that its topic was there and was deleted"


def test_a_broker_that_fell_behind_the_start_of_the_log_acts_on_all_that_it_missed(tmp_path: Path) -> None:
    bench = Bench(tmp_path).start("kept", "gone")
    registered = cs.BrokerRegistered(BROKER_ID, INCARNATION, "a", [])
    kept = cs.TopicCreated(topic_id("kept"), "kept", [[BROKER_ID]], {"retention.ms": "5"})
    led = cs.LeaderChanged(topic_id("kept"), 0, BROKER_ID, 0, 0, [BROKER_ID], bench.partitions["kept", 0].incarnation)
    tell_snapshot(
        bench, 9000, cs.ClusterCreated("cluster"), registered, kept, led,
        cs.TopicCreated(topic_id("new"), "new", [[BROKER_ID]], {}),
        cs.ResourceConfigChanged(4, "", {"log.roll.ms": "7"}))
    assert bench.sent(messages.StopPartition) == [messages.StopPartition("gone", 0)]
    assert [start.topic for start in bench.sent(messages.StartPartition)] == ["new"]
    assert bench.sent(messages.ConfigChanged)[-1].config == {"retention.ms": "5", "segment.ms": "7"}
    assert not bench.sent(messages.BecomeLeader), "what it led it leads"
    tell_snapshot(bench, 8000)  # late
    assert set(bench.actor.cluster.topics_by_name) == {"kept", "new"} and bench.actor.next_offset == 9000


def test_a_snapshot_in_which_only_topics_have_changed_is_told_to_who_serves(tmp_path: Path) -> None:
    bench = Bench(tmp_path).start("kept", "__consumer_offsets")
    registered = cs.BrokerRegistered(BROKER_ID, INCARNATION, "a", [])
    created = [cs.TopicCreated(topic_id(name), name, [[BROKER_ID]], config)
               for name, config in (("kept", {"retention.ms": "5"}), ("__consumer_offsets", {}), ("new", {}))]
    tell_snapshot(bench, 9000, cs.ClusterCreated("cluster"), registered, *created)
    configs = {send.to: send.body.config for send in bench.sends(messages.ConfigChanged)}
    assert configs[bench.partitions["kept", 0]] == {"retention.ms": "5"}
    (told,) = bench.sends(messages.TopicsTold)
    assert told.to == bench.partitions["__consumer_offsets", 0]
    assert {name for name, _, _ in told.body.topics} == {"kept", "__consumer_offsets", "new"}
