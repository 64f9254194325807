"""What producer, consumer and admin share: an I/O thread with a cluster in it, and safe ways to wait for it.

Owns: the start (somebody must answer), the end (everybody who waits is told), and `wait_for`.
Invariant: no wait is without end: it ends with what was waited for, at its timeout, or when the I/O thread ends.
"""

from __future__ import annotations

import atexit
import os
import time
import weakref
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Protocol, TypeVar

from zafka.client.addresses import parse_bootstrap
from zafka.client.cluster import NEVER, Ask, Cluster, Settings, Target
from zafka.client.errors import ClientClosed, ConfigError, NoBroker, RequestTimedOut, ZafkaError
from zafka.client.io_thread import IoThread
from zafka.client.waiting import Signal, until
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.messages import MetadataRequest, MetadataResponse

Found = TypeVar("Found")

# A new topic needs a moment until all brokers know it.
UNKNOWN_TOPIC_PATIENCE_S = 1.0
STOP_S = 5.0


class Worker(Protocol):
    """What runs inside a core's I/O thread besides the cluster."""

    def turn(self, now_s: float) -> float: ...

    def end(self, error: ZafkaError) -> None:
        """The I/O thread ends: fail what is unfinished."""
        ...


class Idle:
    """A worker that does nothing: for the admin client, which only asks."""

    def turn(self, now_s: float) -> float:
        return NEVER

    def end(self, error: ZafkaError) -> None:
        pass


class Answer:
    """What becomes of one request."""

    __slots__ = ("done", "error", "message")

    def __init__(self) -> None:
        self.done = False
        self.message: Any = None
        self.error: ZafkaError | None = None


class Core:
    """See the module. What waits is a coroutine of steps (waiting.py)."""

    def __init__(self, name: str, settings: Settings) -> None:
        self.name = name
        self.settings = settings
        self.changed = Signal()  # metadata, an answer, or the end
        self.ended: ZafkaError | None = None
        self._bootstrap_error: NoBroker | None = None
        self._is_over = False
        self._is_done: Callable[[], bool] | None = None  # set once retiring
        self._retire_at_s = NEVER
        self.worker: Worker = Idle()
        self.io = IoThread(f"zafka-{name}", self._turn, self._on_crash, self._on_end)
        self.cluster = Cluster(self.io, settings, self.notify)

    async def start(self, worker: Worker | None = None) -> None:
        """Start the thread and wait until a broker has told us of the cluster. Raises NoBroker."""
        if worker is not None:
            self.worker = worker
        self.cluster.begin(time.monotonic())
        self.io.start()
        try:
            within_s = max(self.settings.bootstrap_timeout, self.settings.connect_timeout) + 2  # NoBroker comes before
            await self.wait_for(lambda: self.cluster.metadata_count or None, within_s, "the first contact")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        self.io.stop()

    def retire(self, is_done: Callable[[], bool], within_s: float) -> None:
        """End the thread once `is_done()`, at the latest `within_s` from now. Whom this served is gone already."""
        self._retire_at_s = time.monotonic() + within_s
        self._is_done = is_done
        _retiring.add(self)
        self.io.wake()

    async def end(self) -> None:
        """Like `stop`, without holding up an event loop while the thread puts its things away."""
        self.io.begin_stop()
        await until(self.changed, lambda: self._is_over or None, time.monotonic() + STOP_S)
        self.io.stop()

    # -- in the user's thread --------------------------------------------------------------------

    def check_alive(self) -> None:
        """Raises ClientClosed if the I/O thread is not there any more. Takes no lock, so also good after a fork."""
        if self.ended is not None:
            raise ClientClosed(str(self.ended)) from self.io.failure

    async def wait_for(self, check: Callable[[], Found | None], timeout_s: float, what: str) -> Found:
        """Wait until `check()`, called after each change of metadata, is not None; it may raise.

        Raises RequestTimedOut, ClientClosed, and NoBroker before the first contact.
        """

        def look() -> Found | None:
            self.check_alive()
            found = check()
            if found is None and self._bootstrap_error is not None:
                raise self._bootstrap_error
            return found

        self.check_alive()  # before any lock is taken
        found = await until(self.changed, look, time.monotonic() + timeout_s)
        if found is None:
            raise RequestTimedOut(f"{what} took longer than {timeout_s:g} s; {self.cluster.no_broker()}")
        return found

    async def wait_for_topics(
        self, topics: Iterable[str], timeout_s: float, *, patience_s: float = UNKNOWN_TOPIC_PATIENCE_S
    ) -> None:
        """Wait until these topics are in the metadata. Raises UnknownTopic for one still unknown after `patience_s`."""
        names = list(topics)
        for name in names:
            if not isinstance(name, str) or not name:
                raise ConfigError(f"a topic is a name such as 'orders', not {name!r}")
        give_up_s = time.monotonic() + min(timeout_s, patience_s)
        cluster = self.cluster

        def check() -> bool | None:
            missing = [name for name in names if name not in cluster.topics]
            if not all(map(cluster.wants, missing)):
                self.io.call(partial(cluster.want, missing))
            for name in missing:
                if name in cluster.topic_errors and time.monotonic() >= give_up_s:
                    error = cluster.unknown_topic(name)
                    self.io.call(partial(cluster.unwant, [name]))
                    raise error
            return None if missing else True

        await self.wait_for(check, timeout_s, f"metadata of {', '.join(names)}")

    async def sleep(self, seconds: float) -> None:
        """Let time pass. Raises ClientClosed."""
        await until(self.changed, self.check_alive, time.monotonic() + seconds)

    async def ask(
        self, target: Target | int, api_key: ApiKey, message: Any, timeout_s: float, *, repeat: bool = True
    ) -> Any:
        """Send one request and wait for its answer. Raises ZafkaError."""
        return (await self.await_all([self.begin_ask(target, api_key, message, timeout_s, repeat=repeat)], timeout_s))[0]

    def begin_ask(
        self, target: Target | int, api_key: ApiKey, message: Any, timeout_s: float, *, repeat: bool = True
    ) -> Answer:
        """Send one request; `await_all` waits for what becomes of it."""
        answer = Answer()

        def on_answer(message: Any, error: ZafkaError | None) -> None:
            answer.message, answer.error = message, error
            answer.done = True
            self.notify()

        self.check_alive()
        ask = Ask(target, api_key, message, on_answer, time.monotonic() + timeout_s, repeat)
        self.io.call(lambda: self.cluster.ask(ask))
        return answer

    async def await_all(self, answers: list[Answer], timeout_s: float) -> list[Any]:
        """The messages of asks. They end by themselves; the margin is for an I/O thread that ended in between."""

        def check() -> bool | None:
            if all(answer.done for answer in answers):
                return True
            self.check_alive()
            return None

        if await until(self.changed, check, time.monotonic() + timeout_s + 1.0) is None:
            raise RequestTimedOut(f"no answer within {timeout_s:g} s")
        for answer in answers:
            if answer.error is not None:
                raise answer.error
        return [answer.message for answer in answers]

    # -- in the I/O thread -----------------------------------------------------------------------

    def _turn(self, now_s: float) -> float:
        # The worker first: the cluster then sees the deadlines of what it sent.
        wake_s = min(self.worker.turn(now_s), self.cluster.turn(now_s), self._retire_at_s)
        if self._is_done is not None and (self._is_done() or now_s >= self._retire_at_s):
            self.io.begin_stop()
        if self._bootstrap_error is None and not self.cluster.metadata_count:
            self._bootstrap_error = self.cluster.bootstrap_error(now_s)
            if self._bootstrap_error is not None:
                self.notify()
        return wake_s

    def notify(self) -> None:
        """Have `wait_for` check again."""
        with self.changed:
            self.changed.notify_all()

    def _on_crash(self, error: BaseException) -> None:
        self.ended = ClientClosed(f"the I/O thread of this {self.name} died: {error!r}; close it and make a new one")

    def _on_end(self) -> None:
        if self.ended is None:
            self.ended = ClientClosed(f"this {self.name} is closed")
        self.cluster.close(str(self.ended))
        self.worker.end(self.ended)
        self._is_over = True
        self.notify()
        _retiring.discard(self)


async def list_topics(core: Core, timeout_s: float, *, internal: bool = False) -> list[str]:
    """Names of all topics, in order."""
    request = MetadataRequest(topics=None, allow_auto_topic_creation=False)
    answer: MetadataResponse = await core.ask(Target.ANY, ApiKey.METADATA, request, timeout_s)
    return sorted(topic.name for topic in answer.topics if topic.name and (internal or not topic.is_internal))


def make_settings(bootstrap_servers: str | Iterable[str] | None, **others: Any) -> Settings:
    """Settings from keyword arguments that several clients share. Raises ConfigError."""
    for name, value in others.items():
        if name == "client_id":
            if not isinstance(value, str):
                raise ConfigError(f"client_id must be a string, not {value!r}")
        else:
            check_seconds(name, value)
    return Settings(parse_bootstrap(bootstrap_servers), **others)


def check_seconds(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise ConfigError(f"{name} must be a number of seconds above 0, not {value!r}")
    return float(value)


def check_count(name: str, value: Any, least: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{name} must be a whole number of at least {least}, not {value!r}")
    return value


def check_choice(name: str, value: Any, choices: Iterable[Any]) -> None:
    if value not in choices:
        raise ConfigError(f"{name} must be one of {', '.join(map(repr, choices))}, not {value!r}")


class Closable(Protocol):
    def close_at_exit(self) -> None: ...

    def end_after_fork(self, error: ZafkaError) -> None: ...


_open: weakref.WeakSet[Any] = weakref.WeakSet()
_retiring: set[Core] = set()  # their clients were collected without `close`


def close_at_exit(client: Closable) -> None:
    """Have `client.close_at_exit()` called when the interpreter ends, unless `forget` came first."""
    _open.add(client)


def forget(client: Closable) -> None:
    _open.discard(client)


def _end_in_child() -> None:
    """After a fork the child has our objects, but not their threads."""
    for client in list(_open):
        client.end_after_fork(ClientClosed("this client was made before a fork; make one in the child process"))
    _open.clear()
    _retiring.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_end_in_child)


@atexit.register
def _close_all() -> None:
    for client in list(_open):
        client.close_at_exit()
    for core in list(_retiring):
        core.io.thread.join(STOP_S)
