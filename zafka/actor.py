"""User-written actors: classes of yours, each in a supervised process of its own.

    class Counter(Actor):
        def __init__(self): self.total = 0
        def on_message(self, message, context):
            self.total += message
            return self.total                       # the answer, if it was asked

    with System() as system:
        counter = system.spawn(Counter, name="counter")
        counter.tell(2)                             # no answer; returns once it stands in the mailbox
        counter.ask(3, timeout=1.0)                 # 5

Owns: the public API: `Actor`, `Context`, `Ref`, `System` and the errors; and pickling. Actors and messages are pickled
by cloudpickle here, in the program and in its actors' processes, and travel only over private descriptors and a
directory of mode 0700: nothing that comes from a network is ever unpickled.
An actor that raises dies, and its supervisor starts a new one: its state is lost, unless it keeps it in a topic.
A message is handled at most once. The limits are in docs/actors.md.
"""

from __future__ import annotations

import functools
import itertools
import os
import pickle
import re
import signal
import sys
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, Self

from zafka.client.errors import ZafkaError

if TYPE_CHECKING:
    from zafka.actors.user_shell import UserPort
    from zafka.runtime.actor_system import ActorSystem

ASK_S = 5.0
TELL_S = 30.0  # to stand in a mailbox takes microseconds; longer, and the program itself does not run
MESSAGE_BYTES_MAX = 16 * 1024 * 1024
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}")

Restart = Literal["permanent", "transient", "temporary"]
Strategy = Literal["one_for_one", "one_for_all", "rest_for_one"]


# -- errors --------------------------------------------------------------------------------------


class ActorError(ZafkaError):
    """Root of the errors of actors."""


class ActorFailed(ActorError):
    """The actor died over this message, which may or may not have had its effect.

    reason: how its process ended. traceback: what it raised, "" if it was killed.
    """

    def __init__(self, name: str, reason: str, traceback: str) -> None:
        super().__init__(f"{name} died over the message: {reason}")
        if traceback:
            self.add_note(f"In the actor {name}: {traceback}")
        self.name = name
        self.reason = reason
        self.traceback = traceback

    def __reduce__(self) -> tuple[type[ActorFailed], tuple[str, str, str]]:
        return ActorFailed, (self.name, self.reason, self.traceback)


class ActorStopped(ActorError):
    """There is no such actor, or no more; a message that waited for it is lost."""


class MailboxFull(ActorError):
    """The message was not taken: too many wait for this actor."""


class Deadlock(ActorError):
    """The actor that is asked waits for the asker, so neither could go on."""


class AskTimeout(ActorError, TimeoutError):
    """No answer in time. The message may still be handled."""


class SystemFailed(ActorError):
    """Supervision gave up, or could not begin: what failed, how often, and how it ended last."""


# -- what a user writes --------------------------------------------------------------------------


class Actor:
    """Subclass this. The process makes the object at each start; whatever it raises ends the process.

    One method runs at a time, in one thread. One that runs for longer than the system's `hung_after` without
    `context.progress()` counts as hung, and the process is killed.
    """

    def on_start(self, context: Context) -> None:
        """Once, before the first message."""

    def on_message(self, message: Any, context: Context) -> Any:
        """One message. What is returned is the answer, if it was asked."""
        raise NotImplementedError(f"{type(self).__name__} has no on_message")

    def on_timer(self, name: str, context: Context) -> None:
        """A timer of `context.set_timer` is due."""
        raise NotImplementedError(f"{type(self).__name__} sets timers and has no on_timer")

    def on_stop(self, context: Context) -> None:
        """The last call of a process that is stopped in order. Killed ones, and those that raised, do not get it."""


class Ref(NamedTuple):
    """The way to an actor, whichever process runs it now. May be sent in messages, and used in any actor.

    system: id of the system it belongs to.
    """

    name: str
    system: str

    def __repr__(self) -> str:
        return f"<Ref {self.name}>"

    def tell(self, message: Any) -> None:
        """Send a message; returns once it stands in the mailbox. Raises MailboxFull, ActorStopped."""
        self._post(message, ask=False, timeout_s=TELL_S)

    def ask(self, message: Any, *, timeout: float = ASK_S) -> Any:
        """Send a message, and return the answer.

        timeout: seconds, from now to the answer; waiting for a restart is part of it.
        Raises AskTimeout, ActorFailed (it died over the message), ActorStopped, MailboxFull, Deadlock.
        """
        return pickle.loads(self._post(message, ask=True, timeout_s=timeout))

    def _post(self, message: Any, *, ask: bool, timeout_s: float) -> bytes:
        port = _ports.get(self.system)
        if port is None:
            raise ActorStopped(f"{self.name}: its actor system does not run in this process")
        result = port.post(self.name, _pickle(message, self.name), ask=ask, timeout_s=timeout_s)
        if result is None:
            raise AskTimeout(f"{self.name}: no answer within {timeout_s:g} s; {port.state_of(self.name)}")
        return _open(self.name, *result)


class Context:
    """What an actor may do besides telling and asking. me: its own ref. incarnation: higher at each start."""

    def __init__(self, port: UserPort, system: str) -> None:
        self.me = Ref(port.name, system)
        self.incarnation = port.incarnation
        self.sender: Ref | None = None  # of the message that is being handled; None: the program itself
        self._port = port

    def __repr__(self) -> str:
        return f"<Context of {self.me.name}#{self.incarnation}>"

    def ref(self, name: str) -> Ref:
        """The way to another actor of this system, which need not be there yet."""
        return Ref(name, self.me.system)

    def set_timer(self, name: str, after: float) -> None:
        """Have `on_timer(name)` called once, after that many seconds; setting a name again moves it."""
        self._port.set_timer(name, after)

    def cancel_timer(self, name: str) -> None:
        self._port.cancel_timer(name)

    def progress(self) -> None:
        """Say that this long piece of work is no hang; cheap, so call it as often as you like."""
        self._port.progress()

    def stop(self, reason: str = "stopped itself") -> None:
        """End this process after this call: normally, so that only a permanent actor is started again."""
        self._port.stop(reason)


# -- the owner's end -----------------------------------------------------------------------------


class System:
    """Actors under one supervisor, owned by this program: all of them end with it, however it ends.

    strategy: which others are restarted when an actor dies: none, all, or those spawned after it.
    intensity, period: more crashes than this within so many seconds (of actors that were not ready for a second) end
        the system; see docs/decisions/0007.
    backoff: seconds before the second restart in a row, doubled up to `backoff_max`.
    hung_after: seconds of silence after which an actor is killed. stop_timeout: for all actors together, at the end.
    Raises SystemFailed if it cannot start; and at the end of the `with` statement, if supervision had to give up.
    """

    def __init__(
        self,
        name: str = "actors",
        *,
        strategy: Strategy = "one_for_one",
        intensity: int = 20,
        period: float = 60.0,
        backoff: float = 0.02,
        backoff_max: float = 5.0,
        hung_after: float = 10.0,
        stop_timeout: float = 10.0,
    ) -> None:
        if sys.platform != "linux":
            raise SystemFailed(f"actors run on Linux only, and this is {sys.platform}")
        if strategy not in ("one_for_one", "one_for_all", "rest_for_one"):
            raise ValueError(f"strategy must be one_for_one, one_for_all or rest_for_one, not {strategy!r}")
        self._options: dict[str, Any] = {
            "strategy": strategy, "intensity": intensity, "period_s": period, "backoff_initial_s": backoff,
            "backoff_max_s": backoff_max, "hung_after_s": hung_after, "heartbeat_s": min(0.5, hung_after / 4)}
        self.name = name
        self.id = os.urandom(8).hex()
        self._stop_s = stop_timeout
        self._numbers = itertools.count(1)
        self._system: ActorSystem | None = None

    def __repr__(self) -> str:
        return f"<System {self.name} {self._system!r}>"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if error is None:
            self.check()

    def start(self) -> Self:
        """Start without actors. Raises SystemFailed."""
        from zafka.runtime.actor_system import ActorSystem
        from zafka.runtime.errors import CannotStart
        from zafka.runtime.settings import SupervisionSettings

        system = ActorSystem(self.name, SupervisionSettings(**self._options), stop_s=self._stop_s)
        try:
            system.start()
        except CannotStart as error:
            raise SystemFailed(str(error)) from None
        self._system = system
        _ports[self.id] = system
        return self

    def close(self) -> None:
        """Stop all actors, last spawned first, and wait for their end. Safe to call twice."""
        if self._system is not None:
            self._system.close()

    def check(self) -> None:
        """Raise SystemFailed if supervision has given up."""
        if self._system is not None and self._system.failure:
            raise SystemFailed(self._system.failure)

    def spawn(
        self,
        kind: Callable[..., Actor],
        *args: Any,
        name: str | None = None,
        restart: Restart = "permanent",
        mailbox: int = 1000,
        stop_timeout: float = 1.0,
        **kwargs: Any,
    ) -> Ref:
        """Run `kind(*args, **kwargs)` in a process of its own, now and after each death.

        name: 1 to 64 letters, digits, spaces and ". _ -"; by default made from the class's.
        restart: permanent: always; transient: unless it ended normally (`context.stop`); temporary: never.
        mailbox: messages that may wait for it, 64 MiB at most.
        stop_timeout: seconds to finish when it is stopped; then it is killed.
        Returns at once; messages wait until the actor is ready. Raises ValueError for a name that is taken.
        """
        import cloudpickle

        from zafka.runtime.user_tree import Spawn

        if name is None:
            name = f"{getattr(kind, '__name__', 'actor').lower()}-{next(self._numbers)}"
        if not NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name for an actor: 1 to 64 letters, digits, spaces and '. _ -'")
        if restart not in ("permanent", "transient", "temporary"):
            raise ValueError(f"restart must be permanent, transient or temporary, not {restart!r}")
        if mailbox < 1:
            raise ValueError(f"mailbox must be at least 1, not {mailbox}")
        actor = cloudpickle.dumps(functools.partial(_host, self.id, kind, args, kwargs))
        spawned = self._running().spawn(Spawn(name, actor, restart, stop_timeout, mailbox))
        if spawned is None:
            raise ActorStopped(f"{name}: {self._running().failure or 'the actor system is closed'}")
        if not spawned:
            raise ValueError(f"there is an actor {name!r} already; stop it first, or take another name")
        return Ref(name, self.id)

    def ref(self, name: str) -> Ref:
        """The way to an actor by its name, which need not be there yet."""
        return Ref(name, self.id)

    def stop(self, actor: Ref) -> None:
        """Stop an actor for good, and wait for its end; what waits in its mailbox is lost."""
        self._running().stop(actor.name)

    def status(self) -> list[dict[str, Any]]:
        """Each actor: name, pid, incarnation, restarts, state, mailbox, uptime_s, memory_bytes, last_exit, ..."""
        return self._running().status()

    def kill(self, actor: Ref, signal_number: int = signal.SIGKILL) -> int:
        """Send a signal to an actor's process, to see what happens; returns its id, 0 if there is none just now."""
        return self._running().kill(actor.name, signal_number)

    def _running(self) -> ActorSystem:
        if self._system is None:
            raise ActorStopped("the actor system is not running: call start(), or use it in a with statement")
        return self._system


# -- pickling ------------------------------------------------------------------------------------


class _Port(Protocol):
    """How messages leave this process: the program's actor system, or an actor's port."""

    def post(self, to: str, message: bytes, *, ask: bool, timeout_s: float) -> tuple[int, bytes] | None: ...

    def state_of(self, name: str) -> str: ...


_ports: weakref.WeakValueDictionary[str, _Port] = weakref.WeakValueDictionary()
"""By system id: a `Ref` that arrives in a message leaves by the process that it is used in."""


class _Hosted:
    """An actor as `actors/user_shell.py` drives it: bytes on one side, objects on the other."""

    def __init__(self, actor: Actor, context: Context) -> None:
        self._actor = actor
        self._context = context

    def on_start(self) -> None:
        self._actor.on_start(self._context)

    def on_message(self, message: memoryview, *, sender: str) -> bytes:
        context = self._context
        context.sender = context.ref(sender) if sender else None
        answer = self._actor.on_message(pickle.loads(message), context)
        context.sender = None
        return _pickle(answer, "the answer")

    def on_timer(self, name: str) -> None:
        self._actor.on_timer(name, self._context)

    def on_stop(self) -> None:
        self._actor.on_stop(self._context)


def _host(system: str, kind: Callable[..., Actor], args: Any, kwargs: Any, port: UserPort) -> _Hosted:
    """What is shipped to an actor's process, and called there at each start."""
    _ports[system] = port
    actor = kind(*args, **kwargs)
    if not isinstance(actor, Actor):
        raise TypeError(f"{actor!r} is no zafka.actor.Actor: derive its class from that")
    return _Hosted(actor, Context(port, system))


def _pickle(message: Any, what: str) -> bytes:
    import cloudpickle

    data: bytes = cloudpickle.dumps(message)
    if len(data) > MESSAGE_BYTES_MAX:
        raise ValueError(f"{what}: {len(data)} bytes are more than a message may have ({MESSAGE_BYTES_MAX}); "
                         "put them into a topic or a file, and send where they are")
    return data


def _open(name: str, outcome: int, content: bytes) -> bytes:
    """The pickled answer of an ask, or nothing of a tell; raises what else became of it."""
    from zafka.actors import user_messages as outcomes

    if outcome in (outcomes.TAKEN, outcomes.ANSWERED):
        return content
    text = content.decode()
    match outcome:
        case outcomes.FAILED:
            reason, _, traceback = text.partition("\n")
            raise ActorFailed(name, reason, traceback)
        case outcomes.FULL:
            raise MailboxFull(f"{name}: {text}")
        case outcomes.DEADLOCK:
            raise Deadlock(text)
    raise ActorStopped(f"{name}: {text}")
