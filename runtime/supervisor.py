"""A supervisor's decisions, pure: what happened and the time go in, what to do comes out.

Owns: child specs and what is known of each child, restart limits, backoff, hung detection, order of stopping.
Knows no process: `runtime/processes.py` performs the decisions and reports what became of them.
Speaks OTP: `permanent|transient|temporary`, `one_for_one|one_for_all|rest_for_one`, intensity within a period,
`start_child` and `terminate_child`, escalation. A child may be a supervisor itself.
Differs from OTP where a kill from outside is weather and a crash loop is a bug: a death counts towards the
intensity only if the child was not ready or had been ready for less than a second; only the restart after such a
death waits, not the first time, then with backoff, afresh after 5 s of being ready. Children start without waiting
for each other.
Invariant: a child is never started while an earlier incarnation of it may live.
Source: Erlang/OTP supervisor.erl; System Documentation, "Supervision Principles".
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal, NamedTuple

Restart = Literal["permanent", "transient", "temporary"]
Kind = Literal["worker", "supervisor"]

SETTLED_S = 5.0  # of being ready: the next restart is immediate again
UNSETTLED_S = 1.0  # of being ready: a death before counts as a crash
NAMED_MAX = 3  # children, in a last word
NEVER = float("inf")


class RestartLimit(NamedTuple):
    """More than `intensity` crashes within `period_s` are a bug that restarting does not cure."""

    intensity: int
    period_s: float


class Backoff(NamedTuple):
    initial_s: float
    max_s: float


DEFAULT_LIMIT = RestartLimit(20, 60.0)
DEFAULT_BACKOFF = Backoff(0.02, 5.0)


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """What to run under a name.

    start: for whoever performs `Start`; not looked at here.
    restart: permanent: always; transient: unless it exits with code 0; temporary: never.
    shutdown_s: from `Stop` to `Kill`. Ignored for a supervisor, which takes what its children need.
    fatal_codes: exit codes that restarting cannot help; they escalate at once.
    weather_codes: exit codes of ends that are nobody's bug; they do not count towards the intensity.
    dynamic: came by `start_child`. Dynamic children are stopped together, after the static ones that use them.
    """

    id: str
    start: Any = None
    restart: Restart = "permanent"
    shutdown_s: float = 1.0
    fatal_codes: frozenset[int] = frozenset()
    weather_codes: frozenset[int] = frozenset()
    kind: Kind = "worker"
    dynamic: bool = False


class State(Enum):
    WAITING = "waiting"  # for its restart
    STARTING = "starting"  # asked for, no process yet
    RECOVERING = "recovering"
    READY = "running"
    STOPPING = "stopping"
    DOWN = "stopped"


@dataclass(slots=True)
class Child:
    """attempts: crashes since it was last settled; they make the backoff grow. heard_s: of its last heartbeat.

    at_s: of the restart if WAITING, of the `Kill` if STOPPING. killed: `Kill` was decided, only the death is awaited.
    terminated: not to be restarted but removed. successor: what to start under the same name after that.
    exited_s: when it last ended, and last_exit: how. disk_wait: it is silent because the kernel holds it.
    """

    spec: ChildSpec
    state: State = State.DOWN
    restarts: int = 0
    attempts: int = 0
    ready_s: float = NEVER
    heard_s: float = 0.0
    at_s: float = NEVER
    killed: bool = False
    terminated: bool = False
    successor: ChildSpec | None = None
    last_exit: str = ""
    exited_s: float = NEVER
    disk_wait: bool = False

    @property
    def shown_state(self) -> str:
        return "waits for the disk" if self.disk_wait else self.state.value

    @property
    def lives(self) -> bool:
        """Whether a process exists or is about to."""
        return self.state in (State.STARTING, State.RECOVERING, State.READY, State.STOPPING)


# -- decisions -----------------------------------------------------------------------------------


class Start(NamedTuple):
    """Start this child; report `on_spawned`, `on_ready`, `on_heartbeat`, `on_exit`."""

    spec: ChildSpec


class Stop(NamedTuple):
    """Ask this child to finish. Its death is reported by `on_exit`, or `Kill` follows."""

    id: str


class Kill(NamedTuple):
    id: str
    reason: str


class Removed(NamedTuple):
    """This child is confirmed dead and will not be restarted."""

    id: str


class Ended(NamedTuple):
    """The supervisor has no child any more. failed: it gave up; its own supervisor decides what then."""

    failed: bool
    reason: str
    code: int


Decision = Start | Stop | Kill | Removed | Ended
Decisions = list[Decision]


def allow_restart(restarts_s: deque[float], now_s: float, limit: RestartLimit) -> bool:
    """Record a restart at `now_s` and say whether the child may start again.

    restarts_s: monotonic times of earlier restarts, oldest first; changed in place.
    limit: at most `intensity` restarts within any `period_s` seconds.
    False means: stop every child in reverse order and exit, so that our own supervisor decides.
    Source: Erlang/OTP supervisor.erl, add_restart.
    """
    while restarts_s and restarts_s[0] < now_s - limit.period_s:
        restarts_s.popleft()
    restarts_s.append(now_s)
    return len(restarts_s) <= limit.intensity


def tick_interval_s(hung_after_s: float) -> float:
    """How often `tick` is to be called at least: a gap of twice this counts as a time in which we did not run."""
    return hung_after_s / 8


def backoff_s(attempts: int, backoff: Backoff, jitter: float) -> float:
    """How long to wait before a restart: not at all before the first, then twice as long each time.

    attempts: restarts since the child was last settled. jitter: 0 to 1, spreads children that died together.
    """
    if attempts == 0:
        return 0.0
    longest_s = min(backoff.max_s, backoff.initial_s * 2.0 ** min(attempts - 1, 32))
    return longest_s * (0.5 + 0.5 * jitter)


@dataclass(slots=True)
class _Sequence:
    """Children being stopped in order. then: called when all are down."""

    groups: deque[list[Child]]
    then: Callable[[float], Decisions]
    members: list[Child] = field(default_factory=list)


class Supervisor:
    """name: of this supervisor, for people. specs: the static children, in the order of starting.

    strategy: which other children are restarted when one dies: none, all, or those started after it.
    hung_after_s: silence after which a child is killed. random: 0 to 1, for the jitter.
    """

    def __init__(
        self,
        name: str,
        specs: Sequence[ChildSpec],
        *,
        strategy: str = "one_for_one",
        limit: RestartLimit = DEFAULT_LIMIT,
        backoff: Backoff = DEFAULT_BACKOFF,
        hung_after_s: float = 10.0,
        random: Callable[[], float] = lambda: 0.5,
    ) -> None:
        assert strategy in ("one_for_one", "one_for_all", "rest_for_one")
        self.name = name
        self.strategy = strategy
        self.limit = limit
        self.children = {spec.id: Child(spec) for spec in specs}
        self.ending = ""  # why this supervisor ends, if it does
        self._backoff = backoff
        self._hung_after_s = hung_after_s
        self._random = random
        self._crashes_s: deque[float] = deque()
        self._crashed: deque[str] = deque()  # whose they were
        self._sequence: _Sequence | None = None
        self._ticked_s = NEVER

    def __repr__(self) -> str:
        states = " ".join(f"{child.spec.id}={child.state.value}" for child in self.children.values())
        return f"<Supervisor {self.name} {self.strategy} {self.ending or states}>"

    # -- what is asked of it -------------------------------------------------------------------

    def start(self, now_s: float) -> Decisions:
        """Start all children, in order."""
        self._ticked_s = now_s
        return [self._start(child) for child in self.children.values()]

    def start_child(self, spec: ChildSpec, now_s: float) -> Decisions:
        """Run a further child. One that is there already stays as it is; one that is being removed is followed."""
        if self.ending:
            return []
        child = self.children.get(spec.id)
        if child is not None:
            if child.terminated:
                child.successor = spec
            return []
        child = self.children[spec.id] = Child(spec)
        return [self._start(child)]

    def terminate_child(self, child_id: str, now_s: float) -> Decisions:
        """Stop a child and forget it; `Removed` tells when. `Removed` comes for an unknown one too."""
        child = self.children.get(child_id)
        if child is None:
            return [Removed(child_id)]
        child.terminated = True
        child.successor = None
        if child.lives:
            return self._stop(child, now_s)
        return self._remove(child)

    def shutdown(self, now_s: float) -> Decisions:
        """Stop all children in reverse order; ends with `Ended`."""
        return self._end(now_s, Ended(False, "shutdown", 0))

    # -- what is reported to it ----------------------------------------------------------------

    def on_spawned(self, child_id: str, now_s: float) -> Decisions:
        """The child's process exists."""
        child = self.children[child_id]
        child.heard_s = now_s
        if child.state is State.STARTING:
            child.state = State.RECOVERING
            return []
        # It was to be stopped while it was being started; there is nothing in it yet that could finish.
        return self._kill(child, "stopped while it started")

    def on_ready(self, child_id: str, now_s: float) -> None:
        child = self.children[child_id]
        child.heard_s = now_s
        if child.state is State.RECOVERING:
            child.state = State.READY
            child.ready_s = now_s

    def on_heartbeat(self, child_id: str, now_s: float) -> None:
        child = self.children[child_id]
        child.heard_s, child.disk_wait = now_s, False

    def on_disk_wait(self, child_id: str, now_s: float) -> None:
        """The child is silent because the kernel holds it, as in a flush that stalls: that is no hang.

        A kill would not end it sooner, and what it is about to acknowledge would be lost to those who wait.
        """
        child = self.children[child_id]
        child.heard_s, child.disk_wait = now_s, True

    def on_exit(self, child_id: str, code: int, reason: str, now_s: float) -> Decisions:
        """The child is confirmed dead. code: 0 normal, else a crash or the negative number of a signal."""
        child = self.children[child_id]
        wanted = child.state is State.STOPPING
        ready_for_s = now_s - child.ready_s if child.ready_s != NEVER else -1.0
        child.state, child.ready_s, child.at_s, child.killed = State.DOWN, NEVER, NEVER, False
        child.last_exit, child.exited_s, child.disk_wait = reason, now_s, False
        if child.terminated or (wanted and child.spec.restart == "temporary"):
            return self._remove(child) + self._advance(now_s)
        if self.ending or wanted:
            return self._advance(now_s)
        if code in child.spec.fatal_codes:
            return self._end(now_s, Ended(True, f"{child_id}: {reason}", code))
        if child.spec.restart == "temporary" or (child.spec.restart == "transient" and code == 0):
            return self._remove(child) + self._advance(now_s)
        crashed = ready_for_s < UNSETTLED_S
        counts = crashed and code not in child.spec.weather_codes
        if counts and not self._allow_restart(child_id, now_s):
            return self._end(now_s, Ended(True, self._last_word(child_id, reason), code or 1))
        if ready_for_s >= SETTLED_S:
            child.attempts = 0
        wait_s = 0.0
        if crashed:
            wait_s = backoff_s(child.attempts, self._backoff, self._random())
            child.attempts += 1
        return self._restart(child, now_s, now_s + wait_s)

    def tick(self, now_s: float) -> Decisions:
        """What is due: restarts, kills of those that did not stop, kills of those that are not heard of.

        To be called at `wakeup_s()` and at least every `tick_interval_s`: a longer gap means that we ourselves
        did not run (stopped, a suspended machine), and then nobody's silence is held against him.
        """
        if now_s - self._ticked_s > 2 * tick_interval_s(self._hung_after_s):
            for child in self.children.values():
                child.heard_s = now_s
        self._ticked_s = now_s
        decisions = self._start_due(now_s)
        for child in self.children.values():
            if child.state is State.STOPPING and child.at_s <= now_s:
                decisions += self._kill(child, f"did not stop within {child.spec.shutdown_s:g} s")
            elif self._is_silent(child, now_s, 1.0):
                decisions += self._kill(child, f"hung: no heartbeat for {now_s - child.heard_s:.1f} s")
        return decisions

    def silent(self, now_s: float) -> list[str]:
        """Children that will soon count as hung: whoever can look why they are silent should look now."""
        return [child.spec.id for child in self.children.values() if self._is_silent(child, now_s, 0.5)]

    def crashes(self, now_s: float) -> int:
        """How much of the intensity is used up."""
        return sum(crash_s >= now_s - self.limit.period_s for crash_s in self._crashes_s)

    def wakeup_s(self) -> float:
        """When `tick` has something to do next, apart from looking for hung children."""
        return min(
            (child.at_s for child in self.children.values() if child.state in (State.WAITING, State.STOPPING)),
            default=NEVER,
        )

    # -- how -----------------------------------------------------------------------------------

    def _start_due(self, now_s: float) -> Decisions:
        decisions: Decisions = []
        for child in self.children.values():
            if child.state is State.WAITING and child.at_s <= now_s:
                child.restarts += 1
                decisions.append(self._start(child))
        return decisions

    def _start(self, child: Child) -> Start:
        child.state, child.at_s = State.STARTING, NEVER
        if child.spec.kind == "supervisor":
            child.state = State.READY  # its own children are what can be hung or not ready
        return Start(child.spec)

    def _allow_restart(self, child_id: str, now_s: float) -> bool:
        allowed = allow_restart(self._crashes_s, now_s, self.limit)
        self._crashed.append(child_id)
        while len(self._crashed) > len(self._crashes_s):
            self._crashed.popleft()
        return allowed

    def _last_word(self, child_id: str, reason: str) -> str:
        """Why this supervisor gives up: who crashed, how often, how it ended last."""
        counts = Counter(self._crashed)
        who = ", ".join(f"{name} ({count} times)" for name, count in counts.most_common(NAMED_MAX))
        who += f" and {len(counts) - NAMED_MAX} others" if len(counts) > NAMED_MAX else ""
        limit = f"more than {self.limit.intensity} crashes within {self.limit.period_s:g} s"
        return f"{limit}: {who}; the last, of {child_id}: {reason}"

    def _is_silent(self, child: Child, now_s: float, part: float) -> bool:
        """Whether nothing was heard of it for this part of `hung_after_s`, though it should be heard of."""
        return (
            child.state in (State.RECOVERING, State.READY)
            and child.spec.kind == "worker"
            and not child.killed
            and now_s - child.heard_s > part * self._hung_after_s
        )

    def _stop(self, child: Child, now_s: float) -> Decisions:
        """Ask a living child to finish; one that is not ready has nothing to finish and is killed."""
        if child.state is State.STOPPING:
            return []
        before, child.state = child.state, State.STOPPING
        if before is State.STARTING or child.killed:
            return []  # `on_spawned` goes on, or `on_exit`
        if before is State.RECOVERING:
            return self._kill(child, "stopped before it was ready")
        child.at_s = NEVER if child.spec.kind == "supervisor" else now_s + child.spec.shutdown_s
        return [Stop(child.spec.id)]

    def _kill(self, child: Child, reason: str) -> Decisions:
        child.killed, child.at_s = True, NEVER
        return [Kill(child.spec.id, reason)]

    def _remove(self, child: Child) -> Decisions:
        del self.children[child.spec.id]
        decisions: Decisions = [Removed(child.spec.id)]
        if child.successor is not None and not self.ending:
            successor = self.children[child.spec.id] = Child(child.successor)
            decisions.append(self._start(successor))
        return decisions

    def _restart(self, child: Child, now_s: float, at_s: float) -> Decisions:
        """Start a dead child again at `at_s`, and with it the others that the strategy names, once they are down."""
        children = list(self.children.values())
        others: list[Child] = []
        if self.strategy == "one_for_all":
            others = [other for other in children if other is not child]
        elif self.strategy == "rest_for_one":
            others = children[children.index(child) + 1 :]
        if self._sequence is not None:  # a second death while the children of the first are being stopped
            others = [other for other in children if other in others or other in self._sequence.members]
        members = [other for other in children if other is child or other in others]

        def start_all(now_s: float) -> Decisions:
            for member in members:
                if member.spec.id in self.children and member.state is State.DOWN:
                    member.state, member.at_s = State.WAITING, at_s
            return self._start_due(now_s)

        if not others:
            return start_all(now_s)
        self._sequence = _Sequence(self._groups(others), start_all, members)
        return self._advance(now_s)

    def _end(self, now_s: float, ended: Ended) -> Decisions:
        if self.ending:
            return []
        self.ending = ended.reason

        def end(now_s: float) -> Decisions:
            return [ended]

        self._sequence = _Sequence(self._groups(self.children.values()), end)
        return self._advance(now_s)

    @staticmethod
    def _groups(children: Iterable[Child]) -> deque[list[Child]]:
        """Who is stopped together, first to last: static children one by one in reverse order, then dynamic ones."""
        children = list(children)
        for child in children:
            if child.state is State.WAITING:
                child.state, child.at_s = State.DOWN, NEVER
        groups = deque([child] for child in reversed(children) if not child.spec.dynamic)
        groups.append([child for child in reversed(children) if child.spec.dynamic])
        return groups

    def _advance(self, now_s: float) -> Decisions:
        """Go on with stopping in order: the next group once the one before is down."""
        sequence = self._sequence
        if sequence is None:
            return []
        decisions: Decisions = []
        while sequence.groups:
            alive = [child for child in sequence.groups[0] if child.lives]
            if alive:
                for child in alive:
                    decisions += self._stop(child, now_s)
                return decisions
            sequence.groups.popleft()
        self._sequence = None
        return decisions + sequence.then(now_s)
