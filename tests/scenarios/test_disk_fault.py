"""A disk that fails a flush, from the client to the operator, with the actors themselves.

DESIGN section 3: "A failed flush is not retried on the same file: the actor exits with `DiskFault`, which the
coordinator commits in `__cluster`; the replica is offline (KAFKA_STORAGE_ERROR) until an operator says so. If
`__cluster` itself cannot flush, the tree stops."
The fault is kept twice, in a marker beside the log and in `__cluster`; each order in which one of them is lost is here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.scenarios.test_one_broker import batch, produce, produce_request, read_all, result_of
from tests.scenarios.world import BROKER, COORDINATOR, Process, World
from zafka.actors.actor import Effect, Exit, Flush, FlushFailed, Mail
from zafka.actors.gateway.effects import SHELL
from zafka.actors.messages import NewTopic
from zafka.actors.start import COORDINATOR_DISK_FAULT
from zafka.storage.batch import read_header
from zafka.storage.config import parse_config
from zafka.storage.fault import read_marker
from zafka.storage.repair import plan, repair
from zafka.storage.verify import verify
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode

PARTITION = "partition orders-0"
OFFLINE = (ErrorCode.KAFKA_STORAGE_ERROR, -1)


class FaultyWorld(World):
    """refuses: whose flushes fail. ended: how the coordinator ended, which its supervisor does not start again.

    Others that exit are started again, as supervisors do.
    """

    def __init__(self, data_dir: Path, *, first_incarnation: int = 1) -> None:
        super().__init__(data_dir, topics=[NewTopic("orders", 2, 1, {})], first_incarnation=first_incarnation)
        self.refuses: set[str] = set()
        self.ended: Exit | None = None

    def _perform(self, process: Process, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Flush) and process.peer.name in self.refuses:
                process.mail.append(Mail(SHELL, FlushFailed(effect.token, "Input/output error")))
            else:
                super()._perform(process, [effect])

    def _on_exit(self, process: Process, effect: Exit) -> None:
        name = process.peer.name
        if name == COORDINATOR:
            self.ended = effect
        if self.processes.get(name) is process:
            self.kill(name, restart=name != COORDINATOR)

    def directory(self, name: str = "orders-0") -> Path:
        return self.data_dir / ("coordinator" if name.startswith("__") else "broker-1") / name


Again = Callable[[], FaultyWorld]


@pytest.fixture
def again(tmp_path: Path) -> Again:
    """Everything is killed and starts again, with higher incarnations."""
    worlds: list[FaultyWorld] = []

    def start() -> FaultyWorld:
        if worlds:
            for name in list(worlds[-1].processes):
                worlds[-1].kill(name, restart=False)
        worlds.append(FaultyWorld(tmp_path, first_incarnation=1 + 100 * len(worlds)))
        return worlds[-1]

    return start


def faulted(world: FaultyWorld) -> None:
    """An acknowledged record, then one whose flush fails."""
    client = world.client()
    assert produce(client, batch(b"kept")) == (0, 0)
    world.refuses = {PARTITION}
    # Perhaps written, perhaps not: nobody knows.
    assert produce(client, batch(b"in doubt"))[0] == ErrorCode.REQUEST_TIMED_OUT
    world.refuses = set()


def recover_by_hand(world: FaultyWorld, new_id: str) -> None:
    verdict = verify(world.disk, world.directory())
    planned = plan(world.disk, verdict, new_id=new_id, now_ms=0)
    assert not planned.lost
    repair(world.disk, verdict, planned, parse_config({}), now_ms=0)


def test_a_failed_flush_takes_the_replica_offline_for_clients_and_over_restarts(again: Again) -> None:
    world = again()
    world.up()
    faulted(world)
    client = world.client()
    assert produce(client, batch(b"x")) == OFFLINE
    assert produce(client, batch(b"elsewhere"), partition=1) == (0, 0)
    assert "Input/output error" in read_marker(world.disk, world.directory())
    faults = world.processes[BROKER].actor.cluster.topics_by_name["orders"].partitions[0].faults
    assert "Input/output error" in faults[1]
    for name in (PARTITION, BROKER, COORDINATOR):
        world.kill(name)
        world.run()
        assert produce(world.client(), batch(b"x")) == OFFLINE
    for _ in range(2):
        world = again()
        world.up()
        assert produce(world.client(), batch(b"x")) == OFFLINE


def test_the_committed_fault_alone_keeps_it_offline_and_a_recovery_by_hand_brings_it_back_once(again: Again) -> None:
    world = again()
    world.up()
    faulted(world)
    world.directory().joinpath("disk-fault").unlink()  # a power cut took it
    world = again()
    world.up()
    assert produce(world.client(), batch(b"x")) == OFFLINE
    again()
    recover_by_hand(world, "4f2a")
    world = again()
    world.up()
    client = world.client()
    assert produce(client, batch(b"new"))[0] == 0
    assert [value for _, value in read_all(client)] == [b"kept", b"in doubt", b"new"]
    # The same leave does not hold for the next fault.
    world.refuses = {PARTITION}
    assert produce(client, batch(b"in doubt again"))[0] == ErrorCode.REQUEST_TIMED_OUT
    world.directory().joinpath("disk-fault").unlink()
    world = again()
    world.up()
    assert produce(world.client(), batch(b"x")) == OFFLINE
    again()
    recover_by_hand(world, "4f2b")
    world = again()
    world.up()
    assert produce(world.client(), batch(b"x"))[0] == 0


def test_the_marker_alone_keeps_it_offline_where_everything_ended_before_the_fault_was_committed(again: Again) -> None:
    world = again()
    world.up()
    client = world.client()
    produce(client, batch(b"kept"))
    world.kill(COORDINATOR, restart=False)
    world.refuses = {PARTITION}
    client.send(ApiKey.PRODUCE, 9, produce_request(batch(b"in doubt")))
    world.run()
    assert result_of(client.answers.pop())[0] == ErrorCode.REQUEST_TIMED_OUT
    assert produce(client, batch(b"x")) == OFFLINE  # the broker knows before the cluster does
    world = again()
    world.up()
    assert produce(world.client(), batch(b"x")) == OFFLINE
    world.directory().joinpath("disk-fault").unlink()
    world = again()
    world.up()
    assert produce(world.client(), batch(b"x")) == OFFLINE, "by now it is committed"


def test_a_power_cut_before_either_is_kept_leaves_what_the_disk_has_which_is_the_truth(again: Again) -> None:
    world = again()
    world.up()
    produce(world.client(), batch(b"kept"))
    world.kill(COORDINATOR, restart=False)
    world.refuses = {PARTITION}
    client = world.client()
    client.send(ApiKey.PRODUCE, 9, produce_request(batch(b"never on disk")))
    world.run()
    world.directory().joinpath("disk-fault").unlink()
    (log,) = world.directory().glob("*.log")
    data = log.read_bytes()
    kept = read_header(data).size_bytes
    assert len(data) > kept + 20
    log.write_bytes(data[: kept + 20])  # what never came to the disk is gone with the page cache
    world = again()
    world.up()
    client = world.client()
    assert read_all(client) == [(0, b"kept")]
    assert produce(client, batch(b"new")) == (0, 1)


def test_a_disk_that_takes_no_marker_is_held_by_the_committed_fault(
    again: Again, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = again()
    world.up()
    opened = world.disk.open

    def refuse(path: Path, *, create: bool = False) -> object:
        if path.name == "disk-fault" and create:
            raise OSError(5, "Input/output error")
        return opened(path, create=create)

    monkeypatch.setattr(world.disk, "open", refuse)
    faulted(world)
    assert not world.directory().joinpath("disk-fault").exists()
    assert produce(world.client(), batch(b"x")) == OFFLINE
    world = again()
    world.up()
    assert produce(world.client(), batch(b"x")) == OFFLINE


def test_a_failed_flush_of_the_clusters_own_log_ends_the_tree_and_the_next_start(again: Again) -> None:
    world = again()
    world.up()
    world.refuses = {COORDINATOR}
    world.kill(PARTITION)  # its successor claims leadership, which has to be committed
    world.run()
    assert world.ended is not None and world.ended.code == COORDINATOR_DISK_FAULT
    assert read_marker(world.disk, world.directory("__cluster-0"))
    world = again()
    world.start(COORDINATOR)
    assert world.ended is not None and world.ended.code == COORDINATOR_DISK_FAULT
    assert "Input/output error" in world.ended.reason
