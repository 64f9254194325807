"""The root's end of `zafka chaos`: takes faults, aims them at processes, and follows a plan.

Owns: the board, what is paused and until when, and the schedule of `zafka up --fault-plan`. There is one only where
faults are allowed. Raises FaultError for what cannot be done.
Invariant: it never waits; whom it signals is exactly the incarnation of now (pidfd), never a successor.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zafka.runtime.control import FORK_SERVER, SUPERVISOR
from zafka.runtime.faults.board import FOLDER, Board, Watch
from zafka.runtime.faults.kinds import (
    AnyFault,
    AnyRule,
    ApiFault,
    Clear,
    FaultError,
    Kill,
    MailFault,
    Pause,
    Resume,
    decode_fault,
    described,
    targets_of,
)
from zafka.runtime.faults.mail import FaultyMailbox
from zafka.runtime.faults.plan import Plan, Schedule, schedule
from zafka.runtime.processes import Program
from zafka.transport.mailbox import Mailbox

if TYPE_CHECKING:
    from zafka.runtime.root import Root

SHELLS = {
    "zafka.actors.shell:main": "zafka.runtime.faults.shell:main",
    "zafka.actors.broker_shell:main": "zafka.runtime.faults.broker_shell:main",
}


RULES_MAX = 1000


def faulty_programs(programs: Mapping[str, Program]) -> dict[str, Program]:
    """The same actors in shells that faults may be injected into."""
    return {kind: program._replace(main=SHELLS.get(program.main, program.main)) for kind, program in programs.items()}


class Desk:
    """log: the root's. The board is closed with it."""

    def __init__(self, root: Root, board: Board, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.board = board
        self._root = root
        self._clock = clock
        self._paused: dict[str, tuple[int, float]] = {}  # incarnation, and when to continue it
        self._schedule: Schedule | None = None

    def __repr__(self) -> str:
        return f"<Desk {self.board!r} paused={sorted(self._paused)} {self._schedule}>"

    # -- requests ------------------------------------------------------------------------------

    def take(self, data: Any) -> dict[str, Any]:
        """A request of the control socket; returns the answer."""
        try:
            fault = decode_fault(data)
            answer = self.inject(fault)
        except FaultError as error:
            return {"error": str(error)}
        # Whoever reads the log of a failed test wants to know what was done on purpose.
        self._root.log("info", "fault", do=fault.__struct_config__.tag, **described(fault), **answer)
        return answer

    def inject(self, fault: AnyFault) -> dict[str, Any]:
        """Do it, or have it done from now on.

        Returns {"targets": {name: pid}} or, for a rule, {"id"}. "missed": why no process was hit, if none was.
        "supervisor": its pid, where it is for whoever asks to signal it: we could not answer any more.
        """
        match fault:
            case Kill():
                return self._signal(fault.target, fault.signal)
            case Pause():
                return self._pause(fault)
            case Resume():
                return self._resume(fault)
            case Clear():
                return self._clear(fault)
            case _:
                return self._post(fault)

    def listed(self) -> dict[str, Any]:
        """What is in force."""
        self.board.sweep()
        now_s = self._clock()
        rules = [
            {"id": each.id, "fault": each.rule.__struct_config__.tag, **described(each.rule),
             "hits": self.board.hits(each), "left_s": None if each.until_s is None else round(each.until_s - now_s, 3)}
            for each in self.board.posted.values()]
        paused = [
            {"name": name, "left_s": None if at_s == float("inf") else round(at_s - now_s, 3)}
            for name, (_, at_s) in self._paused.items()]
        return {"rules": rules, "paused": paused}

    # -- time ----------------------------------------------------------------------------------

    def follow(self, plan: Plan) -> None:
        """Begin a plan now."""
        seed = plan.seed if plan.seed is not None else random.randrange(2**31)
        self._schedule = Schedule(schedule(plan, seed, self._names()), seed, started_s=self._clock())
        self._root.log("info", "fault plan begins", seed=seed)

    def tick(self) -> None:
        """Continue whose pause is over, and do what the plan says."""
        now_s = self._clock()
        for name, (incarnation, at_s) in list(self._paused.items()):
            if at_s <= now_s or self._incarnation_of(name) != incarnation:
                del self._paused[name]
                if self._incarnation_of(name) == incarnation:
                    self._send(name, signal.SIGCONT)
        if self._schedule is None:
            return
        for line in self._schedule.perform(now_s, self._inject_here):
            self._root.log("warning", "fault", **line)
        if self._schedule.ended:
            self._root.log("info", "fault plan ends", **self._schedule.summary())
            self._schedule = None

    def wakeup_s(self) -> float:
        """When `tick` has something to do next."""
        next_s = self._schedule.next_s if self._schedule is not None else float("inf")
        return min([next_s, *(at_s for _, at_s in self._paused.values())])

    def _inject_here(self, fault: AnyFault) -> dict[str, Any]:
        answer = self.inject(fault)
        if "supervisor" in answer:
            number = fault.signal if isinstance(fault, Kill) else signal.SIGSTOP
            os.kill(os.getpid(), number)
        return answer

    # -- how -----------------------------------------------------------------------------------

    def _names(self) -> list[str]:
        return [SUPERVISOR, FORK_SERVER, *self._actors()]

    def _actors(self, *kinds: str) -> list[str]:
        """Names of actors, each once; of these kinds, or of all."""
        actors = self._root.tree.actors.values()
        return list(dict.fromkeys(actor.name for actor in actors if not kinds or actor.plan.kind in kinds))

    def _signal(self, pattern: str, number: int) -> dict[str, Any]:
        """Signal all that a pattern names and that run; "missed" says so if none does."""
        targets = targets_of(pattern, self._names())
        answer = self._signal_those_that_run(targets, number)
        if not answer["targets"]:
            answer["missed"] = f"{', '.join(targets)} {'does' if len(targets) == 1 else 'do'} not run at the moment"
        return answer

    def _signal_those_that_run(self, names: Sequence[str], number: int) -> dict[str, Any]:
        answer: dict[str, Any] = {"targets": {}}
        for name in names:
            if name == SUPERVISOR:
                answer["targets"][name] = answer["supervisor"] = os.getpid()
            elif pid := self._send(name, number):
                answer["targets"][name] = pid
        return answer

    def _send(self, name: str, number: int) -> int:
        """Send a signal; returns the process id, 0 if there is no process at the moment."""
        if name == FORK_SERVER:
            self._root.server.signal_server(signal.Signals(number))
            return self._root.server.pid
        return self._root.tree.send_signal(name, number)

    def _incarnation_of(self, name: str) -> int:
        if name == FORK_SERVER:
            return self._root.server.pid
        running = self._root.tree.named(name)
        return running.incarnation if running is not None else 0

    def _pause(self, fault: Pause) -> dict[str, Any]:
        answer = self._signal(fault.target, signal.SIGSTOP)
        at_s = float("inf") if fault.for_s is None else self._clock() + fault.for_s
        for name in answer["targets"]:
            if name != SUPERVISOR:
                self._paused[name] = self._incarnation_of(name), at_s
        return answer

    def _resume(self, fault: Resume) -> dict[str, Any]:
        """Who died meanwhile needs no resuming."""
        answer = self._signal_those_that_run(targets_of(fault.target, self._names()), signal.SIGCONT)
        for name in answer["targets"]:
            self._paused.pop(name, None)
        return answer

    def _clear(self, fault: Clear) -> dict[str, Any]:
        if fault.ids is not None:
            unknown = [each for each in fault.ids if each not in self.board.posted]
            if unknown:
                there = ", ".join(map(str, self.board.posted)) or "none"
                raise FaultError(f"no rule {', '.join(map(str, unknown))} is in force; there are: {there}")
            return {"cleared": self.board.remove(fault.ids)}
        resumed = [name for name in self._paused if self._send(name, signal.SIGCONT)]
        self._paused.clear()
        return {"cleared": self.board.remove(list(self.board.posted)), "resumed": resumed}

    def _post(self, rule: AnyRule) -> dict[str, Any]:
        if isinstance(rule, MailFault):
            for pattern in (rule.sender, rule.receiver):
                targets_of(pattern, [SUPERVISOR, *self._actors()])
        else:
            targets_of(rule.target, self._actors("broker") if isinstance(rule, ApiFault) else self._actors())
        self.board.sweep()
        if len(self.board.posted) >= RULES_MAX:
            raise FaultError(f"{RULES_MAX} rules are in force already; clear some")
        return {"id": self.board.post(rule).id}

    def close(self) -> None:
        self.board.close()


def set_up(
    root: Root, run_dir: Path, programs: Mapping[str, Program]
) -> tuple[Desk, Callable[..., Mailbox], dict[str, Program]]:
    """What a root has in place of the plain where faults are allowed: its desk, its mailbox, its actors' shells."""
    board = Board(run_dir / FOLDER)
    watch = Watch(board.folder, SUPERVISOR)
    return Desk(root, board), partial(FaultyMailbox, watch=watch), faulty_programs(programs)
