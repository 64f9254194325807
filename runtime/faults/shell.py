"""The process shell of an actor that faults may be injected into: `actors/shell.py` with a disk and a mailbox that fail.

Owns: `FaultyRuntime`, which adds the points to crash at that lie between effects; `main`, for coordinator and
partitions. Started in place of the plain shell only where faults are allowed, so those who do not allow them have no
hook anywhere. May fail with whatever the plain shell fails with, and ends without a word at a point to crash at.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import zmq

from zafka.actors.actor import Actor, Effect, Flush, Flushed, FlushFailed, Send
from zafka.actors.direct import AnswerDirect
from zafka.actors.messages import BrokerRegistered, Produced, ProducerIdsAllocated, TopicsCreated, TopicsDeleted
from zafka.actors.shell import LINGER_S, ActorRuntime, open_runtime, serve
from zafka.actors.start import ActorStart
from zafka.runtime.faults.board import Watch, folder_beside
from zafka.runtime.faults.disk import FaultyDisk
from zafka.runtime.faults.mail import FaultyMailbox
from zafka.runtime.faults.points import die
from zafka.storage.disk import PosixDisk

ACKS = (Produced, BrokerRegistered, TopicsCreated, TopicsDeleted, ProducerIdsAllocated)
"""What tells somebody that something is durable."""


class FaultyRuntime(ActorRuntime):
    """As `ActorRuntime`, with a `FaultyDisk` and a `FaultyMailbox`."""

    disk: FaultyDisk
    mailbox: FaultyMailbox

    def adopt(self, actor: Actor) -> None:
        self.disk.crashes.at("recovered", "before")
        super().adopt(actor)

    def tick(self) -> None:
        self.mailbox.release()  # on time; `retry` is for what a port does not take, and takes its time
        super().tick()

    def wakeup_s(self) -> float:
        return min(super().wakeup_s(), self.mailbox.release_s)

    def _flush(self, flush: Flush) -> Flushed | FlushFailed:
        crashes, paths = self.disk.crashes, [file.path for file in flush.files]
        for path in paths:
            crashes.at("flush", "before", path)
        result = super()._flush(flush)
        for path in paths:
            crashes.at("flush", "after", path)
        return result

    def _send(self, effect: Send) -> None:
        if not isinstance(effect.body, ACKS):
            super()._send(effect)
            return
        self.disk.crashes.at("ack", "before")
        super()._send(effect)
        if self.disk.crashes.due("ack", "after"):
            to_supervisor = self.mailbox.ports()[0]
            assert isinstance(to_supervisor, zmq.Socket)
            context = to_supervisor.context
            self.mailbox.close(LINGER_S)
            context.term()  # when this returns, the answer is out
            die()

    def _perform_other(self, effect: Effect) -> None:
        if not isinstance(effect, AnswerDirect):
            super()._perform_other(effect)
            return
        self.disk.crashes.at("ack", "before")
        super()._perform_other(effect)
        self.disk.crashes.at("ack", "after")  # what is in a Unix socket's buffer outlives who wrote it


@contextmanager
def open_faulty_runtime(start: ActorStart) -> Iterator[tuple[ActorRuntime, Watch]]:
    """As `open_runtime`; the rules are those on the board beside the supervisor's endpoint."""
    watch = Watch(folder_beside(start.supervisor_endpoint), start.name)
    with open_runtime(
        start, disk=FaultyDisk(PosixDisk(), watch), make_mailbox=partial(FaultyMailbox, watch=watch),
        make_runtime=FaultyRuntime,
    ) as runtime:
        yield runtime, watch


def main(start: ActorStart) -> int:
    """Run one actor in this process until it exits; returns the exit code."""
    with open_faulty_runtime(start) as (runtime, _):
        serve(start, runtime)
    assert runtime.exit is not None
    return runtime.exit.code
