"""The coordinator and disks that fail: its own, and those of replicas that an operator has recovered."""

from __future__ import annotations

from pathlib import Path

from tests.unit.disks import FullableDisk, RefusingDisk
from tests.unit.drive import exit_of, only
from tests.unit.test_coordinator import Cluster, broker, outcome, topic
from zafka.actors import messages
from zafka.actors.coordinator import PRODUCER_IDS_BLOCK
from zafka.actors.start import COORDINATOR_DISK_FAULT
from zafka.storage.disk import PosixDisk
from zafka.storage.fault import Recovered, write_recovered
from zafka.transport.kafka.errors import ErrorCode


def test_a_failed_flush_ends_the_coordinator_with_the_code_that_stops_the_tree(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path).up()
    cluster.auto_flush = False
    cluster.send(broker(1), messages.CreateTopics(1, [topic("orders")]))
    end = exit_of(cluster.fail_flush("Input/output error"))
    assert end is not None and end.code == COORDINATOR_DISK_FAULT and "Input/output error" in end.reason


def test_after_a_failed_flush_the_next_coordinator_refuses_though_the_root_left_no_marker(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path).up()
    cluster.auto_flush = False
    cluster.send(broker(1), messages.CreateTopics(1, [topic("orders")]))
    cluster.fail_flush("Input/output error")
    cluster.coordinator.replica.release()  # and the root was killed before it could leave its own
    end = exit_of(Cluster(tmp_path).start())
    assert end is not None and end.code == COORDINATOR_DISK_FAULT and "Input/output error" in end.reason


def test_a_flush_that_fails_in_recovery_is_not_tried_again(tmp_path: Path) -> None:
    disk = RefusingDisk()
    Cluster(tmp_path, disk=disk).up().coordinator.replica.release()
    disk.refuses_flush = True
    for refuses in (True, False):
        disk.refuses_flush = refuses
        end = exit_of(Cluster(tmp_path, disk=disk).start())
        assert end is not None and end.code == COORDINATOR_DISK_FAULT and "Input/output error" in end.reason


def test_a_fault_that_was_recovered_by_hand_ends_once_for_each_id(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path).up()
    (orders,) = cluster.create(topic("orders"))
    fault = messages.ReportFault(orders.topic_id, 0, 1, 4096, "EIO")
    recovered = messages.ReportRecovered(orders.topic_id, 0, 1, "4f2a")
    partition = cluster.state_of(orders.topic_id)
    cluster.send(broker(1), fault)
    assert partition().faults
    cluster.send(broker(1), recovered, recovered)
    assert not partition().faults and partition().recoveries == ["4f2a"]
    cluster.send(broker(1), fault)
    cluster.send(broker(1), recovered)
    assert partition().faults
    cluster.send(broker(1), messages.ReportRecovered(orders.topic_id, 0, 1, "4f2b"))
    assert not partition().faults


def test_a_log_that_was_recovered_by_hand_is_told_of_once(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path).up()
    cluster.send(broker(1), messages.AllocateProducerIds(1, 1))
    cluster.create(topic("orders"))
    cluster.stop()
    directory = tmp_path / "coordinator" / "__cluster-0"
    write_recovered(PosixDisk(), directory, Recovered("77aa", 0, "EIO", [(3, 5), (9, 10)], 0, 0, 20, finished=True))
    for _ in range(2):
        again = Cluster(tmp_path).up()
        state = again.read()
        assert state.recoveries == ["77aa"]
        assert state.next_producer_id == 4 * PRODUCER_IDS_BLOCK
        assert state.topics_by_name["orders"].partitions[0].leader_epoch == -1 + 3
        again.stop()


def test_a_damaged_log_stops_the_tree_and_says_where(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path).up()
    cluster.stop()
    (log,) = (tmp_path / "coordinator" / "__cluster-0").glob("*.log")
    log.write_bytes(log.read_bytes()[:-1])
    end = exit_of(Cluster(tmp_path).start())
    assert end is not None and end.code == COORDINATOR_DISK_FAULT and log.name in end.reason


def test_a_full_disk_is_answered_or_tried_again_and_nothing_is_half_decided(tmp_path: Path) -> None:
    disk = FullableDisk()
    cluster = Cluster(tmp_path, disk=disk).up()
    (orders,) = cluster.create(topic("orders"))
    disk.full = True
    effects = cluster.send(
        broker(1), messages.CreateTopics(1, [topic("more")]), messages.DeleteTopics(2, [("orders", b"")]),
        messages.AllocateProducerIds(3, 1), messages.ClaimLeadership([(orders.topic_id, 0, 5)]))
    created, deleted = only(effects, messages.TopicsCreated), only(effects, messages.TopicsDeleted)
    assert outcome(created.results) == [("more", ErrorCode.KAFKA_STORAGE_ERROR)] and created.results[0].message
    assert outcome(deleted.results) == [("orders", ErrorCode.KAFKA_STORAGE_ERROR)]
    assert cluster.pass_time(5) == []
    disk.full = False
    assert only(cluster.pass_time(1), messages.ProducerIdsAllocated).first == 0
    state = cluster.read()
    assert list(state.topics_by_name) == ["orders"] and state.topics_by_name["orders"].partitions[0].leader == 1


def test_a_disk_that_was_full_when_the_topology_was_to_be_obeyed_lets_it_be_obeyed_later(tmp_path: Path) -> None:
    disk = FullableDisk()
    cluster = Cluster(tmp_path, topic("orders"), brokers=[(1, ""), (2, "")], disk=disk)
    cluster.start()
    cluster.register(1)
    cluster.auto_flush = False
    cluster.register(2)
    disk.full = True
    cluster.flush()  # all brokers are known now: the next turn creates the topics
    assert "orders" not in cluster.coordinator.state.topics_by_name
    disk.full = False
    cluster.auto_flush = True
    cluster.pass_time(1)
    assert "orders" in cluster.read().topics_by_name
