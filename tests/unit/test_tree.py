"""The tree of zafka's own actors, driven by hand: who is started, stopped and told of whom."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import msgspec

from zafka.actors import messages
from zafka.actors.cleaner_messages import StartCleaner
from zafka.actors.start import ActorStart
from zafka.runtime.fork_client import Exited, Spawned
from zafka.runtime.settings import BrokerSettings, TreeSettings
from zafka.runtime.tree import SHUTDOWN_S, Tree
from zafka.transport.mailbox import Received


class Surroundings:
    """What a tree is given: it notes which processes are asked for, killed, and written to."""

    incarnation = 1
    cluster_id = ""
    path = Path("/data")

    def __init__(self) -> None:
        self.now_s = 0.0
        self.incarnations: dict[int, ActorStart] = {}
        self.killed: list[int] = []
        self.sent: list[tuple[tuple[str, int], Any]] = []

    def next_incarnation(self) -> int:
        return 2 + len(self.incarnations)

    def endpoint(self, name: str) -> str:
        return f"ipc://{name}"

    def remove_socket(self, endpoint: str) -> None:
        pass

    def spawn(self, incarnation: int, name: str, data: bytes, fds: Any, modules: Any) -> None:
        self.incarnations[incarnation] = msgspec.msgpack.decode(data, type=ActorStart)

    def kill(self, incarnation: int) -> None:
        self.killed.append(incarnation)

    def send(self, to: tuple[str, int], body: Any) -> None:
        self.sent.append((to, body))

    def forget(self, name: str, incarnation: int) -> None:
        pass


class Listeners:
    def __init__(self, broker: BrokerSettings) -> None:
        self.broker = broker

    def starts(self) -> list[Any]:
        return []

    def fds(self) -> tuple[int, ...]:
        return ()


class Driven:
    """A tree of two brokers, all of which are ready."""

    def __init__(self) -> None:
        self.around = Surroundings()
        brokers = (BrokerSettings(id=1), BrokerSettings(id=2))
        settings = TreeSettings(cluster="test", data_dir=Path("/data"), brokers=brokers, defaults={}, topics=())
        around: Any = self.around
        listeners: Any = {broker.id: Listeners(broker) for broker in brokers}
        self.tree = Tree(
            settings, data_dir=around, run_dir=around, listeners=listeners, mailbox=around, server=around,
            log=lambda *_, **__: None, random=lambda: 0.5, clock=lambda: self.around.now_s)
        self.tree.start()
        self.bring_up()
        assert self.tree.ready

    def bring_up(self) -> None:
        """All processes that were asked for are there and ready."""
        for running in list(self.tree.running.values()):
            if running.pid == 0:
                self.tree.on_spawned(Spawned(running.incarnation, 1000 + running.incarnation))
                self.mail(running.incarnation, messages.Started(1000 + running.incarnation))
                self.mail(running.incarnation, messages.Ready())

    def mail(self, incarnation: int, body: Any) -> None:
        name = self.around.incarnations[incarnation].name
        self.tree.on_mail(Received((name, incarnation), body, memoryview(b"")))

    def newest(self, name: str) -> int:
        return max(number for number, start in self.around.incarnations.items() if start.name == name)

    def told(self, incarnation: int) -> list[Any]:
        """What was sent to it since this was last asked."""
        told = [body for (_, to), body in self.around.sent if to == incarnation]
        self.around.sent = [each for each in self.around.sent if each[0][1] != incarnation]
        return told


def test_a_partition_of_the_same_name_starts_at_another_broker_before_the_old_one_is_down() -> None:
    """A topic was deleted, and created again: the new one's partition has its own place."""
    driven = Driven()
    one, two = driven.newest("broker 1"), driven.newest("broker 2")
    driven.mail(one, messages.StartPartition("orders", 0, bytes(16), {}))
    old = driven.newest("partition orders-0")
    driven.bring_up()
    driven.mail(one, messages.StopPartition("orders", 0))
    assert driven.told(old)[-1] == messages.Shutdown()
    driven.told(one), driven.told(two)

    driven.mail(two, messages.StartPartition("orders", 0, bytes(range(16)), {}))
    new = driven.newest("partition orders-0")
    assert new > old
    driven.around.now_s += SHUTDOWN_S["partition"]
    driven.tree.tick()
    assert driven.around.killed == [old]
    driven.tree.on_exited(Exited(old, -signal.SIGKILL))
    assert driven.told(one) == [messages.ActorDown("partition orders-0", old), messages.PartitionStopped("orders", 0)]
    driven.bring_up()
    assert messages.ActorUp("partition orders-0", new, "") in driven.told(two)
    assert driven.told(one) == []


def test_a_broker_stops_no_partition_of_another() -> None:
    driven = Driven()
    one, two = driven.newest("broker 1"), driven.newest("broker 2")
    driven.mail(one, messages.StartPartition("orders", 0, bytes(16), {}))
    partition = driven.newest("partition orders-0")
    driven.bring_up()
    driven.told(one), driven.told(two)

    driven.mail(two, messages.StopPartition("orders", 0))
    assert driven.told(two) == [messages.PartitionStopped("orders", 0)]  # as of any that it does not have
    driven.mail(one, messages.WhichChildren())
    assert driven.told(one) == [
        messages.ActorUp("partition orders-0", partition, ""), messages.ChildrenTold([("orders", 0)], [])]


def test_a_cleaner_runs_from_when_a_partition_asks_for_it_and_they_are_told_of_each_other() -> None:
    driven = Driven()
    one = driven.newest("broker 1")
    for number in range(3):
        driven.mail(one, messages.StartPartition("orders", number, bytes(16), {}))
    driven.bring_up()
    first, second, third = [driven.newest(f"partition orders-{number}") for number in range(3)]
    driven.mail(first, StartCleaner())
    cleaner = driven.newest("cleaner 1")
    driven.mail(second, StartCleaner())
    assert driven.newest("cleaner 1") == cleaner, "one for a broker"
    driven.bring_up()
    up = messages.ActorUp("cleaner 1", cleaner, f"ipc://a{cleaner}")
    assert up in driven.told(first) and up in driven.told(second) and up not in driven.told(third)
    driven.told(one), driven.told(cleaner)

    driven.tree.on_exited(Exited(first, -signal.SIGKILL))
    assert driven.told(cleaner) == [messages.ActorDown("partition orders-0", first)]
    driven.bring_up()
    again = driven.newest("partition orders-0")
    driven.mail(again, StartCleaner())
    assert up in driven.told(again)


def test_a_cleaner_that_fails_is_started_when_a_partition_asks_again_and_does_not_count_as_a_crash() -> None:
    driven = Driven()
    one = driven.newest("broker 1")
    driven.mail(one, messages.StartPartition("orders", 0, bytes(16), {}))
    driven.bring_up()
    partition = driven.newest("partition orders-0")
    for _ in range(20):
        driven.mail(partition, StartCleaner())
        cleaner = driven.newest("cleaner 1")
        driven.bring_up()
        driven.told(partition)
        driven.tree.on_exited(Exited(cleaner, -signal.SIGKILL))
        assert driven.told(partition) == [messages.ActorDown("cleaner 1", cleaner)]
        driven.tree.tick()
        assert driven.newest("cleaner 1") == cleaner
    assert driven.newest("broker 1") == one and driven.tree.ready
