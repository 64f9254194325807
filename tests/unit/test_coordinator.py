"""The coordinator, driven with mail and flushes on a real disk: what it decides, and what a restart remembers."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.unit.disks import ClosingDisk, FullableDisk
from tests.unit.drive import Drive, bodies, exit_of, only
from tests.unit.memory_disk import MemoryDisk
from zafka.actors import cluster_state, messages
from zafka.actors.actor import Effect, Exit, Now, Peer, PeerGone, Send
from zafka.actors.cluster_state import ClusterState, PartitionState, events_in
from zafka.actors.coordinator import PRODUCER_IDS_BLOCK, CoordinatorActor, build
from zafka.actors.dynamic_config import DELETE, SET
from zafka.actors.messages import Endpoint, NewTopic, TopicResult
from zafka.actors.start import TOPOLOGY_REFUSED, CoordinatorStart
from zafka.storage.disk import Disk
from zafka.transport.kafka.errors import ErrorCode

SUPERVISOR = Peer("supervisor", 1)
KAFKA = Endpoint("kafka", "kafka", "127.0.0.1", 9092)


def broker(broker_id: int, incarnation: int = 1) -> Peer:
    return Peer(f"broker {broker_id}", incarnation)


class Cluster(Drive):
    """A coordinator, and a broker's copy of the state as it comes out of its answers."""

    def __init__(
        self, data_dir: Path, *topics: NewTopic, brokers: Sequence[tuple[int, str]] = ((1, ""),),
        defaults: dict[str, str] | None = None, cluster_id: str = "", disk: Disk | None = None,
    ) -> None:
        start = CoordinatorStart(
            data_dir=str(data_dir), cluster="demo", brokers=list(brokers), defaults=defaults or {},
            topics=list(topics), cluster_id=cluster_id)
        self.disk = disk or ClosingDisk()
        super().__init__(build(start, self.disk, Now(100.0, 1_700_000_000_000), lambda: None))
        self.ids = itertools.count(1)
        self.copy = ClusterState()
        self.next_offset = 0

    @property
    def coordinator(self) -> CoordinatorActor:
        assert isinstance(self.actor, CoordinatorActor)
        return self.actor

    def up(self) -> Cluster:
        """Start, and register every broker of the topology."""
        assert exit_of(self.start()) is None
        for place in self.coordinator._places:
            assert exit_of(self.register(place.broker_id)) is None
        return self

    def register(self, broker_id: int, incarnation: int = 1, rack: str = "") -> list[Effect]:
        return self.send(
            broker(broker_id, incarnation), messages.RegisterBroker(broker_id, incarnation, rack, [KAFKA]))

    def create(self, *topics: NewTopic, validate_only: bool = False) -> list[TopicResult]:
        effects = self.send(broker(1), messages.CreateTopics(next(self.ids), list(topics), validate_only))
        return only(effects, messages.TopicsCreated).results

    def alter(self, name: str, *, validate_only: bool = False, **config: str | None) -> int:
        """The error of a change of a topic's configuration."""
        operations = [
            messages.ConfigOperation(SET if value is not None else DELETE, key.replace("_", "."), value)
            for key, value in config.items()]
        changes = [messages.ConfigChange(2, name, operations)]
        effects = self.send(broker(1), messages.AlterConfigs(next(self.ids), changes, validate_only))
        ((error, _),) = only(effects, messages.ConfigsAltered).outcomes
        return error

    def delete(self, *topics: tuple[str, bytes]) -> list[TopicResult]:
        return only(self.send(broker(1), messages.DeleteTopics(next(self.ids), list(topics))),
                    messages.TopicsDeleted).results

    def claim(self, *claims: tuple[bytes, int, int], sender: Peer | None = None) -> list[Effect]:
        return self.send(sender or broker(1), messages.ClaimLeadership(list(claims)))

    def read(self) -> ClusterState:
        """What a broker knows once it has read all that is committed."""
        while True:
            effects = self.send(broker(1), messages.ReadCluster(self.next_offset))
            answer = next(iter(bodies(effects, messages.ClusterRecords)), None)
            if answer is None:
                return self.copy
            self.next_offset = answer.next_offset
            (records,) = [effect.records for effect in effects if isinstance(effect, Send) and effect.records]
            for data in records:
                for _, event in events_in(memoryview(data)):
                    self.copy.apply(event)

    def state_of(self, topic_id: bytes) -> Callable[[], PartitionState]:
        """What a broker knows of partition 0, each time anew."""
        return lambda: self.read().topics_by_id[topic_id].partitions[0]

    def stop(self) -> None:
        assert exit_of(self.send(SUPERVISOR, messages.Shutdown())) == Exit(0, "shutdown")


def topic(
    name: str, partitions: int = 1, factor: int = 1, assignment: list[list[int]] | None = None, **config: str
) -> NewTopic:
    settings = {key.replace("_", "."): value for key, value in config.items()}
    return NewTopic(name, partitions, factor, settings, assignment or [])


def outcome(results: list[TopicResult]) -> list[tuple[str, int]]:
    return [(result.name, result.error) for result in results]


def replicas(state: ClusterState, name: str) -> list[list[int]]:
    return [partition.replicas for partition in state.topics_by_name[name].partitions]


# -- the cluster -------------------------------------------------------------------------------------


def test_a_new_cluster_is_not_forgotten_with_the_name_of_its_folder() -> None:
    """A power cut loses names that were not flushed: also those of folders on the way to the log."""
    for seed in range(30):
        disk = MemoryDisk(seed)
        disk.make_directory(Path("/data"))
        Cluster(Path("/data"), disk=disk)
        disk.power_cut()
        assert disk.exists(Path("/data/coordinator/__cluster-0/partition.metadata"))


def test_a_new_cluster_gets_an_id_in_kafkas_form_and_keeps_it(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    assert cluster.start() == [Send("supervisor", messages.Ready())]
    told = only(cluster.register(1), messages.BrokerRegistered).cluster_id
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]{21}", told)
    cluster.stop()
    again = Cluster(tmp_path).up()
    assert again.read().cluster_id == told


def test_a_new_cluster_takes_the_id_of_its_data_directory_and_none_else_later(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, cluster_id="4L6g3nShT-eMCtK--X86sw").up()
    assert cluster.read().cluster_id == "4L6g3nShT-eMCtK--X86sw"
    cluster.stop()
    end = exit_of(Cluster(tmp_path, cluster_id="AAAAAAAAAAAAAAAAAAAAAA").start())
    assert end is not None and end.code == TOPOLOGY_REFUSED and "4L6g3nShT-eMCtK--X86sw" in end.reason


def test_each_start_leads_in_an_epoch_of_its_own(tmp_path: Path) -> None:
    for epoch in range(3):
        cluster = Cluster(tmp_path).up()
        assert cluster.coordinator.replica.leader_epoch == epoch
        cluster.register(1, incarnation=epoch + 2)  # something to write
        cluster.coordinator.replica.release()  # killed


def test_nothing_is_answered_or_read_before_it_is_committed(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path).up()
    cluster.read()
    cluster.auto_flush = False
    assert cluster.send(broker(1), messages.ReadCluster(cluster.next_offset)) == []
    request = messages.CreateTopics(1, [topic("orders")])
    assert cluster.send(broker(1), request) == []
    # A decision that rests on it waits as well.
    assert cluster.send(broker(2), messages.CreateTopics(2, [topic("orders")])) == []
    effects = cluster.flush()
    (created, refused), records = bodies(effects, messages.TopicsCreated), only(effects, messages.ClusterRecords)
    assert created.results[0].error == 0 and refused.results[0].error == ErrorCode.TOPIC_ALREADY_EXISTS
    assert records.next_offset == created.offset == records.high_watermark


def test_what_one_turn_decides_is_one_batch_and_one_flush(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path).up()
    cluster.auto_flush = False
    cluster.send(
        broker(1), messages.CreateTopics(1, [topic("a"), topic("b")]), messages.AllocateProducerIds(2, 1),
        messages.CreateTopics(3, [topic("a")]))
    assert len(cluster.flushes) == 1
    first, second = bodies(cluster.flush(), messages.TopicsCreated)
    assert outcome(first.results) == [("a", 0), ("b", 0)]
    assert outcome(second.results) == [("a", ErrorCode.TOPIC_ALREADY_EXISTS)]
    assert not cluster.flushes


def test_a_restart_knows_everything_that_was_answered(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path).up()
    (created,) = cluster.create(topic("orders", 3, retention_ms="1000"))
    cluster.create(topic("gone"))
    cluster.delete(("gone", b""))
    cluster.claim((created.topic_id, 1, 12))
    cluster.send(broker(1), messages.AllocateProducerIds(9, 1))
    before = cluster.read()
    cluster.coordinator.replica.release()  # killed
    again = Cluster(tmp_path)
    again.start()
    after = again.read()
    assert (after.topics_by_name, after.brokers) == (before.topics_by_name, before.brokers)
    assert (after.cluster_id, after.next_producer_id) == (before.cluster_id, before.next_producer_id)
    assert after.topics_by_name["orders"].partitions[1].incarnation == 12


def test_a_disk_that_is_full_from_the_start_holds_nothing_up_for_ever(tmp_path: Path) -> None:
    disk = FullableDisk()
    cluster = Cluster(tmp_path, topic("orders"), disk=disk)
    disk.full = True
    cluster.start()
    assert cluster.register(1) == []
    disk.full = False
    assert only(cluster.pass_time(1), messages.BrokerRegistered).cluster_id
    assert "orders" in cluster.read().topics_by_name


# -- brokers -----------------------------------------------------------------------------------------


def test_a_broker_is_registered_once_per_incarnation(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path).up()
    end = cluster.coordinator.replica.log.end_offset
    assert only(cluster.register(1), messages.BrokerRegistered)  # the coordinator was new, the broker was not
    assert cluster.coordinator.replica.log.end_offset == end
    only(cluster.register(1, incarnation=2, rack="a"), messages.BrokerRegistered)
    assert cluster.register(1, incarnation=1) == []  # late
    assert cluster.read().brokers[1] == cluster_state.BrokerState(1, 2, "a", [KAFKA])


def test_a_broker_that_left_the_topology_leaves_the_cluster(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, brokers=[(1, ""), (2, "")]).up()
    (created,) = cluster.create(topic("orders", -1, -1, [[1], [2]]))
    cluster.claim((created.topic_id, 1, 4), sender=broker(2))
    cluster.stop()
    state = Cluster(tmp_path, brokers=[(1, "")]).up().read()
    assert list(state.brokers) == [1]
    assert state.topics_by_name["orders"].partitions[1].leader == cluster_state.NO_LEADER


def test_a_long_poll_is_answered_once_and_its_owner_may_vanish(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, brokers=[(1, ""), (2, "")]).up()
    end = cluster.coordinator.replica.log.end_offset
    for broker_id in (1, 2):
        assert cluster.send(broker(broker_id), messages.ReadCluster(end)) == []
    cluster.send(SUPERVISOR, PeerGone(broker(2)))
    effects = cluster.send(broker(1), messages.CreateTopics(1, [topic("a")]))
    assert [effect.to for effect in effects if isinstance(effect.body, messages.ClusterRecords)] == [broker(1)]
    assert bodies(cluster.send(broker(1), messages.CreateTopics(2, [topic("b")])), messages.ClusterRecords) == []


def test_long_histories_are_read_in_pieces(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path).up()
    for i in range(6):
        cluster.create(topic(f"t{i}", 9_000))
    answer = only(cluster.send(broker(1), messages.ReadCluster(0)), messages.ClusterRecords)
    assert 0 < answer.next_offset <= answer.high_watermark
    assert len(cluster.read().topics_by_name) == 6


# -- leadership --------------------------------------------------------------------------------------


@pytest.fixture
def orders(tmp_path: Path) -> tuple[Cluster, bytes]:
    cluster = Cluster(tmp_path).up()
    (created,) = cluster.create(topic("orders", 2))
    return cluster, created.topic_id


def test_each_incarnation_that_claims_leads_in_a_new_epoch(orders: tuple[Cluster, bytes]) -> None:
    cluster, topic_id = orders
    cluster.claim((topic_id, 0, 10), (topic_id, 1, 11))
    first, second = cluster.read().topics_by_id[topic_id].partitions
    assert (first.leader, first.leader_epoch, first.isr, first.incarnation) == (1, 0, [1], 10)
    assert (second.leader, second.leader_epoch, second.incarnation) == (1, 0, 11)
    cluster.claim((topic_id, 0, 15))
    assert (cluster.read().topics_by_id[topic_id].partitions[0].leader_epoch, first.incarnation) == (1, 15)


def test_repeated_late_and_foreign_claims_change_nothing(orders: tuple[Cluster, bytes]) -> None:
    cluster, topic_id = orders
    cluster.claim((topic_id, 0, 10))
    end = cluster.coordinator.replica.log.end_offset
    cluster.claim((topic_id, 0, 10), (topic_id, 0, 9), (topic_id, 2, 10), (bytes(16), 0, 10))
    cluster.claim((topic_id, 0, 12), sender=broker(2))  # never registered
    cluster.claim((topic_id, 0, 12), sender=broker(1, incarnation=0))
    assert cluster.coordinator.replica.log.end_offset == end
    cluster.register(1, incarnation=2)
    end = cluster.coordinator.replica.log.end_offset
    cluster.claim((topic_id, 0, 12))  # of the process before
    assert cluster.coordinator.replica.log.end_offset == end


def test_a_replica_whose_disk_failed_may_not_lead_again(orders: tuple[Cluster, bytes]) -> None:
    cluster, topic_id = orders
    cluster.claim((topic_id, 0, 10))
    fault = messages.ReportFault(topic_id, 0, 1, 4096, "EIO")
    cluster.send(broker(1), fault)
    cluster.send(broker(1), fault)
    cluster.claim((topic_id, 0, 20))
    partition = cluster.read().topics_by_id[topic_id].partitions[0]
    assert partition.leader == cluster_state.NO_LEADER and partition.faults == {1: "EIO"}
    assert partition.leader_epoch == 0


def test_producer_ids_come_in_blocks_that_are_never_given_twice(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path).up()
    asked = cluster.send(broker(1), messages.AllocateProducerIds(1, 1), messages.AllocateProducerIds(2, 1))
    firsts = [answer.first for answer in bodies(asked, messages.ProducerIdsAllocated)]
    cluster.coordinator.replica.release()  # killed
    cluster = Cluster(tmp_path).up()
    asked = cluster.send(broker(1), messages.AllocateProducerIds(3, 1))
    assert [*firsts, only(asked, messages.ProducerIdsAllocated).first] == [
        0, PRODUCER_IDS_BLOCK, 2 * PRODUCER_IDS_BLOCK]


# -- topics of clients -------------------------------------------------------------------------------


def test_a_topic_is_created_as_asked(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path).up()
    (result,) = cluster.create(topic("orders", 3, retention_ms="1000"))
    assert (result.error, result.message, result.partitions, result.replication_factor) == (0, "", 3, 1)
    known = cluster.read().topics_by_name["orders"]
    assert known.topic_id == result.topic_id and len(known.partitions) == 3
    assert known.config == {"retention.ms": "1000"}


def test_numbers_that_are_left_open_are_the_clusters_defaults(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, defaults={"num.partitions": "4"}).up()
    (result,) = cluster.create(topic("orders", -1, -1))
    assert (result.partitions, result.replication_factor) == (4, 1)


def test_validate_only_says_the_same_and_does_nothing(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path).up()
    results = cluster.create(topic("orders", 3), topic("a b"), validate_only=True)
    assert outcome(results) == [("orders", 0), ("a b", ErrorCode.INVALID_TOPIC_EXCEPTION)]
    assert results[0].partitions == 3 and results[0].topic_id != bytes(16)  # Kafka gives an id away, too
    assert not cluster.read().topics_by_name


@pytest.mark.parametrize(
    ("asked", "error", "words"),
    [
        (topic(""), ErrorCode.INVALID_TOPIC_EXCEPTION, "Topic name is invalid: the empty string is not allowed"),
        (topic(".."), ErrorCode.INVALID_TOPIC_EXCEPTION, "'..' is not allowed"),
        (topic("a/b"), ErrorCode.INVALID_TOPIC_EXCEPTION, "other than ASCII alphanumerics, '.', '_' and '-'"),
        (topic("ä"), ErrorCode.INVALID_TOPIC_EXCEPTION, "other than ASCII alphanumerics"),
        (topic("x\n"), ErrorCode.INVALID_TOPIC_EXCEPTION, "other than ASCII alphanumerics"),
        (topic("x" * 250), ErrorCode.INVALID_TOPIC_EXCEPTION, "longer than the max allowed length 249"),
        (topic("old.topic"), ErrorCode.TOPIC_ALREADY_EXISTS, "Topic 'old.topic' already exists."),
        (topic("old_topic"), ErrorCode.INVALID_TOPIC_EXCEPTION, "collides with existing topic: old.topic"),
        (topic("__cluster"), ErrorCode.INVALID_REQUEST, "Creation of internal topic __cluster is prohibited."),
        (topic("t", 0), ErrorCode.INVALID_PARTITIONS, "non-positive"),
        (topic("t", -2), ErrorCode.INVALID_PARTITIONS, "non-positive"),
        (topic("t", 10_001), ErrorCode.POLICY_VIOLATION, "Excessively large number"),
        (topic("t", 1, 0), ErrorCode.INVALID_REPLICATION_FACTOR, "must be larger than 0, or -1"),
        (topic("t", 1, 3), ErrorCode.INVALID_REPLICATION_FACTOR, "only 2 broker(s) are registered"),
        (topic("t", 1, 2), ErrorCode.INVALID_REPLICATION_FACTOR, "not supported yet"),
        (topic("t", -1, -1, [[1], [3]]), ErrorCode.INVALID_REPLICA_ASSIGNMENT, "broker 3, but no such broker"),
        (topic("t", -1, -1, [[1], []]), ErrorCode.INVALID_REPLICA_ASSIGNMENT, "an empty replica list."),
        (topic("t", -1, -1, [[1, 1]]), ErrorCode.INVALID_REPLICA_ASSIGNMENT, "the broker 1 more than once."),
        (topic("t", -1, -1, [[1], [1, 2]]), ErrorCode.INVALID_REPLICA_ASSIGNMENT, "not consistent with previous"),
        (topic("t", -1, -1, [[1, 2]]), ErrorCode.INVALID_REPLICATION_FACTOR, "not supported yet"),
        (topic("t", 1, -1, [[1]]), ErrorCode.INVALID_REQUEST, "numPartitions was not set to -1."),
        (topic("t", -1, 1, [[1]]), ErrorCode.INVALID_REQUEST, "replication factor was not set to -1."),
        (topic("t", retention_mss="1"), ErrorCode.INVALID_CONFIG, "retention.ms"),
        (topic("t", retention_ms="soon"), ErrorCode.INVALID_CONFIG, "soon"),
    ],
)
def test_a_topic_that_may_not_be_is_refused_in_kafkas_words(
    tmp_path: Path, asked: NewTopic, error: ErrorCode, words: str
) -> None:
    cluster = Cluster(tmp_path, brokers=[(1, ""), (2, "")]).up()
    cluster.create(topic("old.topic"))
    end = cluster.coordinator.replica.log.end_offset
    (result,) = cluster.create(asked)
    assert (result.error, result.topic_id, result.partitions) == (error, bytes(16), -1)
    assert words in result.message
    assert cluster.coordinator.replica.log.end_offset == end


def test_a_name_that_stands_twice_in_a_request_is_not_created_at_all(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path).up()
    results = cluster.create(topic("a"), topic("b"), topic("a", 2))
    assert outcome(results) == [("a", ErrorCode.INVALID_REQUEST), ("b", 0)]
    assert results[0].message == "Duplicate topic name."
    assert list(cluster.read().topics_by_name) == ["b"]


def test_names_in_one_request_may_not_collide_either(tmp_path: Path) -> None:
    results = Cluster(tmp_path).up().create(topic("a.b"), topic("a_b"))
    assert outcome(results) == [("a.b", 0), ("a_b", ErrorCode.INVALID_TOPIC_EXCEPTION)]


def test_partitions_go_round_the_brokers_and_on_from_topic_to_topic(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, brokers=[(1, ""), (2, ""), (3, "")]).up()
    cluster.create(topic("a", 4), topic("b", 2), topic("c"))
    state = cluster.read()
    assert [replicas(state, name) for name in "abc"] == [[[1], [2], [3], [1]], [[2], [3]], [[1]]]


def test_neighbours_are_on_different_racks(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, brokers=[(1, "a"), (2, "a"), (3, "b"), (4, "b")]).up()
    cluster.create(topic("t", 4))
    assert replicas(cluster.read(), "t") == [[1], [3], [2], [4]]


def test_only_brokers_that_were_seen_get_partitions(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, brokers=[(1, ""), (2, "")])
    cluster.start()
    (refused,) = cluster.create(topic("t"))
    assert refused.error == ErrorCode.INVALID_REPLICATION_FACTOR and "only 0 broker(s)" in refused.message
    cluster.register(2)
    cluster.create(topic("t", 2))
    assert replicas(cluster.read(), "t") == [[2], [2]]


def test_topics_are_deleted_by_name_and_by_id(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path).up()
    a, b, _ = cluster.create(topic("a"), topic("b"), topic("c"))
    results = cluster.delete(("a", b""), ("", b.topic_id), ("x", b""), ("", bytes(16)))
    assert [(result.name, result.topic_id, result.error) for result in results] == [
        ("a", a.topic_id, 0), ("b", b.topic_id, 0), ("x", b"", ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        ("", bytes(16), ErrorCode.UNKNOWN_TOPIC_ID)]
    assert list(cluster.read().topics_by_name) == ["c"]
    (again,) = cluster.create(topic("a"))
    assert again.error == 0 and again.topic_id != a.topic_id


def test_a_topic_named_twice_for_deletion_stays(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path).up()
    cluster.create(topic("a"))
    assert outcome(cluster.delete(("a", b""), ("a", b""))) == [("a", ErrorCode.INVALID_REQUEST)]
    assert "a" in cluster.read().topics_by_name


# -- topics of the topology --------------------------------------------------------------------------


def test_the_topologys_topics_are_there_once_all_brokers_are(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, topic("orders", 4, retention_ms="1000"), brokers=[(1, ""), (2, "")])
    cluster.start()
    cluster.register(1)
    assert not cluster.read().topics_by_name
    cluster.register(2)
    state = cluster.read()
    assert replicas(state, "orders") == [[1], [2], [1], [2]]
    assert state.topics_by_name["orders"].config == {"retention.ms": "1000"}


def test_an_edited_topology_adds_partitions_and_its_configuration_wins(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, topic("orders", 2, retention_ms="1000")).up()
    cluster.create(topic("by.hand"))
    topic_id = cluster.read().topics_by_name["orders"].topic_id
    cluster.stop()
    cluster = Cluster(tmp_path, topic("orders", 3, retention_ms="2000")).up()
    state = cluster.read()
    assert state.topics_by_name["orders"].topic_id == topic_id
    assert (len(state.topics_by_name["orders"].partitions), state.topics_by_name["orders"].config) == (
        3, {"retention.ms": "2000"})
    assert "by.hand" in state.topics_by_name
    cluster.stop()
    end = cluster.coordinator.replica.log.end_offset
    unchanged = Cluster(tmp_path, topic("orders", -1, retention_ms="2000")).up()
    assert unchanged.coordinator.replica.log.end_offset == end  # nothing to say


def test_what_is_altered_holds_until_the_topology_says_something_new(tmp_path: Path) -> None:
    def config(cluster: Cluster) -> dict[str, str]:
        return cluster.read().topics_by_name["orders"].config

    cluster = Cluster(tmp_path, topic("orders", 1, retention_ms="1000")).up()
    assert cluster.alter("orders", retention_ms="2000", segment_ms="3000", validate_only=True) == 0
    assert config(cluster) == {"retention.ms": "1000"}
    assert cluster.alter("orders", retention_ms="2000", segment_ms="3000") == 0
    assert config(cluster) == {"retention.ms": "2000", "segment.ms": "3000"}
    cluster.stop()
    cluster = Cluster(tmp_path, topic("orders", 1, retention_ms="1000")).up()
    assert config(cluster) == {"retention.ms": "2000", "segment.ms": "3000"}
    assert cluster.alter("orders", retention_ms=None) == 0
    assert config(cluster) == {"segment.ms": "3000"}
    cluster.stop()
    cluster = Cluster(tmp_path, topic("orders", 1, retention_ms="4000")).up()
    assert config(cluster) == {"retention.ms": "4000"}
    cluster.stop()
    assert config(Cluster(tmp_path).up()) == {"retention.ms": "4000"}  # the file need not name it


def test_what_is_altered_of_brokers_and_groups_survives_a_restart(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path).up()
    change = [messages.ConfigChange(kind, name, [messages.ConfigOperation(SET, key, value)]) for kind, name, key, value in (
        (4, "", "log.retention.ms", "5"), (4, "1", "num.partitions", "6"), (32, "g", "consumer.session.timeout.ms", "50000"))]
    effects = cluster.send(broker(1), messages.AlterConfigs(7, change, True))
    assert [error for error, _ in only(effects, messages.ConfigsAltered).outcomes] == [0, ErrorCode.INVALID_REQUEST, 0]
    assert not cluster.read().altered
    effects = cluster.send(broker(1), messages.AlterConfigs(8, change))
    assert [error for error, _ in only(effects, messages.ConfigsAltered).outcomes] == [0, ErrorCode.INVALID_REQUEST, 0]
    cluster.stop()
    altered = Cluster(tmp_path).up().read().altered
    assert {where: each.config for where, each in altered.items()} == {
        (4, ""): {"log.retention.ms": "5"}, (32, "g"): {"consumer.session.timeout.ms": "50000"}}
    again = Cluster(tmp_path / "again", defaults={"retention.ms": "1"}).up()
    again.send(broker(1), messages.AlterConfigs(9, change[:1]))
    again.stop()
    assert not Cluster(tmp_path / "again", defaults={"retention.ms": "2"}).up().read().altered, "the file says something new"


def test_the_topology_wins_once_over_a_topic_that_was_created_by_hand(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path).up()
    cluster.create(topic("orders", 1, retention_ms="1000"))
    cluster.stop()
    cluster = Cluster(tmp_path, topic("orders", 1)).up()
    assert cluster.read().topics_by_name["orders"].config == {}
    cluster.alter("orders", retention_ms="5")
    cluster.stop()
    assert Cluster(tmp_path, topic("orders", 1)).up().read().topics_by_name["orders"].config == {"retention.ms": "5"}


def test_an_alteration_that_changes_nothing_or_is_refused_writes_nothing(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, topic("orders", 1, retention_ms="1000")).up()
    end = cluster.coordinator.replica.log.end_offset
    assert cluster.alter("orders", retention_ms="1000", segment_ms=None) == 0
    assert cluster.alter("orders", retention_ms="x") == ErrorCode.INVALID_CONFIG
    assert cluster.alter("none", retention_ms="1") == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert cluster.coordinator.replica.log.end_offset == end


def test_a_topology_with_fewer_partitions_is_refused_with_what_would_be_right(tmp_path: Path) -> None:
    Cluster(tmp_path, topic("orders", 3)).up().stop()
    end = exit_of(Cluster(tmp_path, topic("orders", 2)).start())
    assert end is not None and end.code == TOPOLOGY_REFUSED
    assert "'orders'" in end.reason and "3 partitions" in end.reason and "say 3 or more" in end.reason


def test_a_topology_with_an_impossible_topic_is_refused(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, topic("orders", 1, 2))
    cluster.start()
    end = exit_of(cluster.register(1))
    assert end is not None and end.code == TOPOLOGY_REFUSED and "'orders'" in end.reason


# -- stopping ----------------------------------------------------------------------------------------


def test_a_stop_finishes_what_was_decided_and_takes_no_more(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path).up()
    cluster.auto_flush = False
    cluster.send(broker(1), messages.CreateTopics(1, [topic("a")]))
    assert exit_of(cluster.send(SUPERVISOR, messages.Shutdown())) is None
    assert cluster.send(broker(1), messages.CreateTopics(2, [topic("b")])) == []
    cluster.auto_flush = True
    effects = cluster.flush()
    assert only(effects, messages.TopicsCreated).request_id == 1 and exit_of(effects) == Exit(0, "shutdown")
    assert list(Cluster(tmp_path).up().read().topics_by_name) == ["a"]


def test_a_coordinator_says_what_it_holds(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, cluster_id="abc").up()
    assert repr(cluster.actor) == "<Coordinator leader epoch=0 end=2 hw=2 <ClusterState abc brokers=1 topics=0>>"
