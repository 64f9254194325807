"""Drives a sans-IO actor by hand: mail in, effects out, flushes when the test says so, a clock that stands still."""

from __future__ import annotations

from typing import Any, TypeVar

from zafka.actors.actor import (
    Actor,
    Effect,
    Exit,
    Flush,
    Flushed,
    FlushFailed,
    Mail,
    Now,
    Peer,
    Send,
    SetTimer,
    TimerFired,
)

SHELL = Peer("shell", 0)
Body = TypeVar("Body")


class Drive:
    """flushes: begun and not told the end of yet. auto_flush: each flush succeeds within its turn, as in the shell."""

    def __init__(self, actor: Actor, *, auto_flush: bool = True, wall_ms: int = 1_700_000_000_000) -> None:
        self.actor = actor
        self.auto_flush = auto_flush
        self.now = Now(100.0, wall_ms)
        self.flushes: list[Flush] = []
        self.timers: dict[str, float] = {}
        self.effects: list[Effect] = []  # since the last `take`

    def start(self) -> list[Effect]:
        self._keep(self.actor.on_start(self.now))
        return self.turn()

    def turn(self, *mails: Mail) -> list[Effect]:
        """One turn, and those that its flushes cause; returns the effects but flushes and timers."""
        for mail in mails:
            self._keep(self.actor.on_mail(mail, self.now))
        self._keep(self.actor.on_turn_end(self.now))
        self._settle()
        return self.take()

    def send(self, sender: Peer, *bodies: Any, records: bytes = b"") -> list[Effect]:
        return self.turn(*(Mail(sender, body, memoryview(records)) for body in bodies))

    def flush(self) -> list[Effect]:
        """The oldest flush that runs succeeds."""
        self._tell(Flushed(self.flushes.pop(0).token))
        self._settle()
        return self.take()

    def fail_flush(self, reason: str = "EIO") -> list[Effect]:
        self._tell(FlushFailed(self.flushes.pop(0).token, reason))
        return self.take()

    def pass_time(self, seconds: float) -> list[Effect]:
        """Let time go by and every timer fire that comes due, in order."""
        until_s = self.now.monotonic_s + seconds
        effects: list[Effect] = []
        while self.timers:
            at_s, name = min((at_s, name) for name, at_s in self.timers.items())
            if at_s > until_s:
                break
            del self.timers[name]
            self._move_clock(max(at_s, self.now.monotonic_s))
            effects += self.turn(Mail(SHELL, TimerFired(name)))
        self._move_clock(until_s)
        return effects

    def take(self) -> list[Effect]:
        effects, self.effects = self.effects, []
        return effects

    def _settle(self) -> None:
        while self.flushes and self.auto_flush:
            self._tell(Flushed(self.flushes.pop(0).token))

    def _tell(self, body: Any) -> None:
        self._keep(self.actor.on_mail(Mail(SHELL, body), self.now))
        if not any(isinstance(effect, Exit) for effect in self.effects):
            self._keep(self.actor.on_turn_end(self.now))

    def _move_clock(self, to_s: float) -> None:
        passed_ms = round((to_s - self.now.monotonic_s) * 1000)
        self.now = Now(to_s, self.now.wall_ms + passed_ms)

    def _keep(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Flush):
                self.flushes.append(effect)
            elif isinstance(effect, SetTimer):
                self.timers[effect.name] = effect.at_s
            else:
                self.effects.append(effect)


def bodies(effects: list[Effect], kind: type[Body]) -> list[Body]:
    """The bodies of this kind that are sent."""
    return [effect.body for effect in effects if isinstance(effect, Send) and isinstance(effect.body, kind)]


def only(effects: list[Effect], kind: type[Body]) -> Body:
    found = bodies(effects, kind)
    assert len(found) == 1, f"{len(found)} of {kind.__name__} in {effects}"
    return found[0]


def exit_of(effects: list[Effect]) -> Exit | None:
    return next((effect for effect in effects if isinstance(effect, Exit)), None)
