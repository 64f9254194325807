"""Small things for real processes to be, named by tests as "process_actors:name"."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable

from zafka.actors.actor import Effects, Exit, Mail, Now, Send
from zafka.actors.messages import (
    ActorUp,
    ChildrenTold,
    ReadCluster,
    Ready,
    ReplicaUp,
    Shutdown,
    StartPartition,
    WhichChildren,
)
from zafka.actors.start import (
    COORDINATOR_DISK_FAULT,
    INHERITED_FD,
    SUPERVISOR,
    TOPOLOGY_REFUSED,
    ActorStart,
    BrokerStart,
    CoordinatorStart,
    CustomStart,
    PartitionStart,
)
from zafka.storage.disk import Disk

# Words that a test puts into the environment: what goes wrong in its actors.
PLANTED = os.environ.get("ZAFKA_TEST_PLANTED", "")
if PLANTED == "import":
    raise ImportError("planted")


def exit_with(start: ActorStart) -> int:
    assert isinstance(start.arguments, CustomStart)
    return int(start.arguments.arguments["code"])


def wait(start: ActorStart) -> int:
    signal.pause()
    return 0


def fail(start: ActorStart) -> int:
    raise RuntimeError("planted")


def tell(start: ActorStart) -> int:
    """What this process is, as JSON into the first inherited descriptor."""
    with open("/proc/self/cmdline") as file:
        title = file.read().rstrip("\0")
    facts = {
        "title": title,
        "incarnation": start.incarnation,
        "parent": os.getppid(),
        "ignores": [signal.getsignal(number) == signal.SIG_IGN for number in (signal.SIGINT, signal.SIGTERM)],
        "fds": sorted(int(name) for name in os.listdir("/proc/self/fd")),
    }
    os.write(INHERITED_FD, json.dumps(facts).encode())
    return 0


# -- actors for `zafka.actors.shell:main` ----------------------------------------------------------


class Echo:
    """Answers WhichChildren, crashes on ReadCluster, stops on Shutdown."""

    def on_start(self, now: Now) -> Effects:
        return [Send(SUPERVISOR, Ready())]

    def on_mail(self, mail: Mail, now: Now) -> Effects:
        match mail.body:
            case Shutdown():
                return [Exit(0, "shutdown")]
            case WhichChildren():
                return [Send(mail.sender, ChildrenTold([]))]
            case ReadCluster(offset=offset):
                raise ValueError(f"planted at {offset}")
        return []

    def on_turn_end(self, now: Now) -> Effects:
        return []


def build_echo(start: CustomStart, disk: Disk, now: Now, progress: Callable[[], None]) -> Echo:
    progress()
    return Echo()


# -- a small tree: a broker that wants two partitions, and hears of them ----------------------------


class SmallBroker(Echo):
    """Ready when both its partitions have reported."""

    def __init__(self) -> None:
        self.up: set[int] = set()
        self.wanted = {0, 1}

    def on_start(self, now: Now) -> Effects:
        return [Send(SUPERVISOR, WhichChildren())]

    def on_mail(self, mail: Mail, now: Now) -> Effects:
        match mail.body:
            case Shutdown():
                return [Exit(0, "shutdown")]
            case ChildrenTold():
                return [Send(SUPERVISOR, StartPartition("orders", number, b"i" * 16, {})) for number in self.wanted]
            case ReplicaUp(partition=partition):
                self.up.add(partition)
                return [Send(SUPERVISOR, Ready())] if self.up == self.wanted else []
        return []


class SmallPartition(Echo):
    """Reports to each broker that it is told of."""

    def __init__(self, start: PartitionStart) -> None:
        self.start = start

    def on_mail(self, mail: Mail, now: Now) -> Effects:
        match mail.body:
            case Shutdown():
                return [] if "deaf" in PLANTED else [Exit(0, "shutdown")]
            case ActorUp(name=name):
                return [Send(name, ReplicaUp(self.start.topic, self.start.partition, self.start.topic_id, -1))]
        return []


def build_broker(start: BrokerStart, disk: Disk, now: Now, progress: Callable[[], None]) -> SmallBroker:
    return SmallBroker()


def build_partition(start: PartitionStart, disk: Disk, now: Now, progress: Callable[[], None]) -> SmallPartition:
    if "crash" in PLANTED and start.partition == 1:
        raise RuntimeError("planted crash")
    return SmallPartition(start)


def build_coordinator(start: CoordinatorStart, disk: Disk, now: Now, progress: Callable[[], None]) -> Echo:
    for code in (TOPOLOGY_REFUSED, COORDINATOR_DISK_FAULT):
        if str(code) in PLANTED:
            return Refusing(code)
    return Echo()


class Refusing(Echo):
    def __init__(self, code: int) -> None:
        self.code = code

    def on_start(self, now: Now) -> Effects:
        return [Exit(self.code, "planted reason")]
