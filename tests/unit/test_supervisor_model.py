"""A supervisor under any order of deaths, starts, silences and requests, beside a model of its processes.

What must hold: never two living incarnations of a child; nothing is forgotten (whoever is down and wanted is waiting,
or will be started once others are down); static children stop in reverse order, one after the other; the intensity is
exact; whatever happens, a shutdown ends.
"""

from __future__ import annotations

from typing import Any

from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from zafka.runtime.supervisor import (
    UNSETTLED_S,
    Backoff,
    ChildSpec,
    Decisions,
    Ended,
    Kill,
    Removed,
    RestartLimit,
    Start,
    State,
    Stop,
    Supervisor,
)

STATIC = ("a", "b", "c")
DYNAMIC = ("p", "q")
HUNG_AFTER_S = 10.0
PERIOD_S = 60.0
BACKOFF = Backoff(0.02, 5.0)


class Process:
    """A process as the outside world knows it."""

    def __init__(self) -> None:
        self.spawned = False
        self.ready_s: float | None = None
        self.asked_to_stop_s: float | None = None
        self.killed = False


class Model(RuleBasedStateMachine):
    @initialize(
        strategy=st.sampled_from(["one_for_one", "one_for_all", "rest_for_one"]),
        intensity=st.integers(0, 6),
        restarts=st.tuples(*[st.sampled_from(["permanent", "permanent", "transient", "temporary"])] * len(STATIC)),
        jitter=st.floats(0, 1),
    )
    def begin(self, strategy: str, intensity: int, restarts: tuple[Any, ...], jitter: float) -> None:
        self.now_s = 1000.0
        self.strategy = strategy
        self.intensity = intensity
        self.living: dict[str, Process] = {}
        self.specs = {name: ChildSpec(name, restart=kind) for name, kind in zip(STATIC, restarts, strict=True)}
        self.specs |= {name: ChildSpec(name, dynamic=True) for name in DYNAMIC}
        self.crashes_s: list[float] = []
        self.ended: Ended | None = None
        self.gave_up = False
        self.shut_down = False
        self.wanted: set[str] = set(STATIC)
        self.supervisor = Supervisor(
            "test", [self.specs[name] for name in STATIC], strategy=strategy, limit=RestartLimit(intensity, PERIOD_S),
            backoff=BACKOFF, hung_after_s=HUNG_AFTER_S, random=lambda: jitter)
        self.perform(self.supervisor.start(self.now_s))

    # -- the world -----------------------------------------------------------------------------

    def perform(self, decisions: Decisions) -> None:
        for decision in decisions:
            assert self.ended is None, "something is decided after the end"
            match decision:
                case Start(spec=spec):
                    assert spec.id not in self.living, f"two living incarnations of {spec.id}"
                    assert not self.supervisor.ending, "something starts while it ends"
                    self.living[spec.id] = Process()
                    self.wanted.add(spec.id)
                case Stop(id=name):
                    process = self.living[name]
                    assert process.ready_s is not None, "one that is not ready has nothing to finish"
                    assert process.asked_to_stop_s is None, "asked twice"
                    self.check_order(name)
                    process.asked_to_stop_s = self.now_s
                case Kill(id=name):
                    process = self.living[name]
                    assert process.spawned, "there is no process to kill"
                    assert not process.killed, "killed twice"
                    process.killed = True
                case Removed(id=name):
                    assert name not in self.living, "removed and alive"
                    self.wanted.discard(name)
                case Ended():
                    assert self.living == {}, "it ends while somebody lives"
                    self.ended = decision

    def check_order(self, name: str) -> None:
        """Nobody who was started after this static child, and is to stop too, may live still."""
        if self.supervisor.ending and name in STATIC:
            later = STATIC[STATIC.index(name) + 1 :]
            assert not set(later) & self.living.keys(), f"{name} is stopped before {later}"
        elif self.supervisor.ending:
            assert not set(STATIC) & self.living.keys(), "a dynamic child is stopped before the static ones"

    # -- what may happen -----------------------------------------------------------------------

    @rule(name=st.sampled_from(STATIC + DYNAMIC))
    def spawned(self, name: str) -> None:
        process = self.living.get(name)
        if process is not None and not process.spawned:
            process.spawned = True
            self.perform(self.supervisor.on_spawned(name, self.now_s))

    @rule(name=st.sampled_from(STATIC + DYNAMIC))
    def ready(self, name: str) -> None:
        process = self.living.get(name)
        if process is not None and process.spawned and not process.killed and process.ready_s is None:
            process.ready_s = self.now_s
            self.supervisor.on_ready(name, self.now_s)

    @rule()
    def all_come_up(self) -> None:
        """As it usually is: whoever was started is ready at once."""
        for name in list(self.living):
            self.spawned(name)
            self.ready(name)

    @rule(name=st.sampled_from(STATIC + DYNAMIC), code=st.sampled_from([0, 70, -9]))
    def dies(self, name: str, code: int) -> None:
        process = self.living.get(name)
        if process is None:
            return
        if not process.spawned:
            code = 71  # no process could be made
        del self.living[name]
        child = self.supervisor.children[name]
        expected = child.state is State.STOPPING or child.terminated or bool(self.supervisor.ending)
        restart = self.specs[name].restart
        over = restart == "temporary" or (restart == "transient" and code == 0)
        if not expected and not over and (process.ready_s is None or self.now_s - process.ready_s < UNSETTLED_S):
            self.crashes_s = [at_s for at_s in self.crashes_s if at_s >= self.now_s - PERIOD_S] + [self.now_s]
            self.gave_up = self.gave_up or len(self.crashes_s) > self.intensity
        self.perform(self.supervisor.on_exit(name, code, "reason", self.now_s))
        assert self.gave_up == (bool(self.supervisor.ending) and not self.shut_down), "the intensity is not exact"

    @rule(name=st.sampled_from(DYNAMIC))
    def start_child(self, name: str) -> None:
        self.perform(self.supervisor.start_child(self.specs[name], self.now_s))
        if not self.supervisor.ending:
            self.wanted.add(name)

    @rule(name=st.sampled_from(STATIC + DYNAMIC))
    def terminate_child(self, name: str) -> None:
        if self.ended is None and not self.supervisor.ending:
            self.perform(self.supervisor.terminate_child(name, self.now_s))

    @rule()
    def shutdown(self) -> None:
        if self.ended is None and not self.supervisor.ending:
            self.shut_down = True
            self.perform(self.supervisor.shutdown(self.now_s))

    @rule(seconds=st.sampled_from([0.01, 0.3, 1.1, 2.0, 6.0, 61.0]), silent=st.sampled_from([None, *STATIC, *DYNAMIC]))
    def time_passes(self, seconds: float, silent: str | None) -> None:
        """All but one send heartbeats meanwhile; the supervisor is called when it wants to be."""
        end_s = self.now_s + seconds
        while self.now_s < end_s and self.ended is None:
            self.now_s = min(end_s, self.now_s + 0.5, max(self.now_s + 0.001, self.supervisor.wakeup_s()))
            for name, process in self.living.items():
                if process.spawned and name != silent:
                    self.supervisor.on_heartbeat(name, self.now_s)
            self.perform(self.supervisor.tick(self.now_s))

    # -- what must hold ------------------------------------------------------------------------

    @invariant()
    def nothing_is_forgotten(self) -> None:
        if not hasattr(self, "supervisor") or self.ended is not None:
            return
        alive = {child.spec.id for child in self.supervisor.children.values() if child.lives}
        assert alive == self.living.keys()
        if self.supervisor.ending:
            assert self.living, "it ends, nobody lives, and it has not said so"
            return
        for child in self.supervisor.children.values():
            if child.state is State.DOWN:
                assert self.strategy != "one_for_one", f"{child.spec.id} is down for ever"
                stopping = [other for other in self.supervisor.children.values() if other.state is State.STOPPING]
                assert stopping, f"{child.spec.id} waits for nobody"
        for name, process in self.living.items():
            if process.asked_to_stop_s is not None and not process.killed:
                assert self.now_s <= process.asked_to_stop_s + 1.5, f"{name} ignores its stop and is not killed"
        assert self.wanted == {
            child.spec.id for child in self.supervisor.children.values() if not child.terminated or child.successor
        } | {name for name in self.wanted if name in self.supervisor.children}

    def teardown(self) -> None:
        """Whatever was before: a shutdown ends, and the world needs no more than to obey."""
        if not hasattr(self, "supervisor"):
            return
        self.shutdown()
        for _ in range(100):
            if self.ended is not None:
                break
            for name in list(self.living):
                self.spawned(name)
            for name, process in list(self.living.items()):
                if process.killed or process.asked_to_stop_s is not None:
                    self.dies(name, -9)
        assert self.ended is not None, f"the shutdown does not end: {self.supervisor}"
        assert self.ended.failed == self.gave_up


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
