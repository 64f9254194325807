"""The shell of a broker that faults may be injected into: `actors/broker_shell.py` with requests that fail.

Owns: `FaultyBrokerShell`: the points between an answer and the wire, and the gateway's way into the faults of
`runtime/faults/gateway.py`. Disk and mailbox are those of `runtime/faults/shell.py`.
"""

from __future__ import annotations

from zafka.actors.broker import BrokerActor
from zafka.actors.broker_shell import BrokerShell, serve
from zafka.actors.gateway.effects import Respond
from zafka.actors.shell import ActorRuntime
from zafka.actors.start import ActorStart
from zafka.runtime.faults.board import Watch
from zafka.runtime.faults.gateway import FaultyApis
from zafka.runtime.faults.points import Crashes, die
from zafka.runtime.faults.shell import open_faulty_runtime

SENT_S = 0.05  # in which the loop has written an answer


class FaultyBrokerShell(BrokerShell):
    """rules: where they are found. The other arguments are `BrokerShell`'s."""

    def __init__(self, start: ActorStart, runtime: ActorRuntime, rules: Watch) -> None:
        super().__init__(start, runtime)
        self._rules = rules
        self._crashes = Crashes(rules)

    def make_actor(self) -> BrokerActor:
        actor = super().make_actor()
        gateway = actor.gateway
        gateway.served = FaultyApis(gateway.served, self._rules).served
        return actor

    def _respond(self, effect: Respond) -> None:
        self._crashes.at("ack", "before")
        super()._respond(effect)
        if self._crashes.due("ack", "after"):
            self.loop.call_later(SENT_S, die)


def main(start: ActorStart) -> int:
    """Run a broker in this process until it exits; returns the exit code."""
    with open_faulty_runtime(start) as (runtime, watch):
        serve(runtime, lambda: FaultyBrokerShell(start, runtime, watch))
    assert runtime.exit is not None
    return runtime.exit.code
