"""The root's end of the fork server (`runtime/forkserver.py`): launches it, asks for processes, hears of their ends.

Owns: the server's process and the socket to it, and the pidfds of all children. Never blocks: requests that the
socket does not take wait here. May fail with ForkServerGone once the server is dead; its children are then dying
with it, and `confirm_all_dead` says when they are.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
from collections import deque
from typing import NamedTuple

from zafka.runtime.forkserver import FDS_MAX, MESSAGE_BYTES_MAX, SOCKET_FD

TREE_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Spawned(NamedTuple):
    incarnation: int
    pid: int


class Exited(NamedTuple):
    """code: exit code, or the negative number of the signal that killed it."""

    incarnation: int
    code: int


class Refused(NamedTuple):
    """No process could be made: too many, or no memory."""

    incarnation: int
    errno: int


class ServerReady(NamedTuple):
    """Everything is imported; requests are answered at once from now on."""

    pid: int


class Pong(NamedTuple):
    number: int


class ForkServerGone(Exception):
    """The fork server is dead, and every actor dies with it."""


Message = tuple[str, int, str, tuple[str, ...]]
Report = Spawned | Exited | Refused | ServerReady | Pong


PRELOAD = (
    "zafka.actors.shell",
    "zafka.actors.coordinator",
    "zafka.actors.partition",
    "zafka.actors.cleaner",
    "zafka.actors.broker_shell",
)
"""What every actor needs; imported once, before the first fork."""

FAULTY = ("zafka.runtime.faults.shell", "zafka.runtime.faults.broker_shell")

_launched: list[ForkServerClient] = []


def launch_early(*, faults: bool = False) -> None:
    """Launch the server that the next `launch` hands out: it imports while the caller still reads its arguments.

    faults: actors will run in the shells of `runtime/faults`."""
    if not _launched:
        _launched.append(ForkServerClient((*PRELOAD, *FAULTY) if faults else PRELOAD))


def launch() -> ForkServerClient:
    """A fork server for zafka's own actors."""
    return _launched.pop() if _launched else ForkServerClient(PRELOAD)


def _encode(message: Message) -> bytes:
    import msgspec  # not at the top: the server is launched before anything that takes long to import

    return msgspec.msgpack.encode(message)


def _decode(data: bytes) -> tuple[str, int, int]:
    import msgspec

    return msgspec.msgpack.decode(data, type=tuple[str, int, int])


def _send_signal(pidfd: int, number: signal.Signals) -> None:
    """To this very process; nothing if it is dead."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, number)


class ForkServerClient:
    """A fork server, launched at once so that it imports while the caller does other things.

    modules: what it imports before it forks. hung_after_s: how long the root may be stopped before it is continued.
    """

    def __init__(self, modules: tuple[str, ...], *, hung_after_s: float = 10.0) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        arguments = [sys.executable, "-P", "-m", "zafka.runtime.forkserver", str(os.getpid()), str(hung_after_s)]
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self.pid = os.posix_spawn(
            sys.executable, [*arguments, *modules],
            # The children import what we can import.
            {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)},
            file_actions=[(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, theirs.fileno(), SOCKET_FD)],
            # Blocked from its first instruction: a Ctrl-C during its imports is ours to handle.
            setsigmask=TREE_SIGNALS,
        )
        os.close(null)
        theirs.close()
        ours.setblocking(False)
        self.socket = ours
        self.pidfd = os.pidfd_open(self.pid)
        self.pidfds: dict[int, int] = {}  # of living children, by incarnation
        self._outbox: deque[tuple[bytes, list[int]]] = deque()
        self._pings = 0
        self.closed = False
        self.exit_code: int | None = None  # once closed; the negative number of a signal

    def __repr__(self) -> str:
        return f"<ForkServerClient pid={self.pid} children={len(self.pidfds)}>"

    # -- requests ------------------------------------------------------------------------------

    def spawn(
        self, incarnation: int, name: str, start: bytes, fds: tuple[int, ...] = (), modules: tuple[str, ...] = ()
    ) -> None:
        """Ask for a process; `Spawned` or `Refused` is the answer.

        start: an encoded ActorStart. fds: stay ours. modules: that it needs; a server that still imports and has
            those already need not finish first.
        """
        assert len(fds) < FDS_MAX, "more descriptors than one message carries"
        start_file = os.memfd_create("start", os.MFD_CLOEXEC)
        os.pwrite(start_file, start, 0)
        self._send(("spawn", incarnation, name, modules), [start_file, *map(os.dup, fds)])

    def ping(self) -> int:
        """Ask whether it is alive; `Pong` with the returned number is the answer."""
        self._pings += 1
        self._send(("ping", self._pings, "", ()), [])
        return self._pings

    def watch_root(self, hung_after_s: float) -> None:
        """Continue us if we are stopped for longer than this."""
        self._send(("watch", int(hung_after_s * 1000), "", ()), [])

    def signal_server(self, number: signal.Signals) -> None:
        """Send a signal to the server itself."""
        _send_signal(self.pidfd, number)

    def kill(self, incarnation: int, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to exactly this child; nothing if it is dead."""
        pidfd = self.pidfds.get(incarnation)
        if pidfd is not None:
            _send_signal(pidfd, number)

    @property
    def wants_to_write(self) -> bool:
        return bool(self._outbox)

    def flush(self) -> None:
        """Send what waits. To be called when the socket is writable."""
        while self._outbox:
            data, fds = self._outbox[0]
            try:
                socket.send_fds(self.socket, [data], fds)
            except BlockingIOError:
                return
            except (BrokenPipeError, ConnectionResetError):
                return  # `receive` tells
            self._outbox.popleft()
            for fd in fds:
                os.close(fd)

    def _send(self, message: Message, fds: list[int]) -> None:
        self._outbox.append((_encode(message), fds))
        self.flush()

    # -- reports -------------------------------------------------------------------------------

    def receive(self) -> list[Report]:
        """What it has told since; raises ForkServerGone at its end, after the last report."""
        reports: list[Report] = []
        while True:
            try:
                data, fds, _, _ = socket.recv_fds(self.socket, MESSAGE_BYTES_MAX, 1)
            except BlockingIOError:
                return reports
            except ConnectionResetError:
                data, fds = b"", []
            if not data:
                if reports:
                    return reports
                raise ForkServerGone
            reports.append(self._read(_decode(data), fds))

    def _read(self, message: tuple[str, int, int], fds: list[int]) -> Report:
        kind, number, value = message
        match kind:
            case "spawned":
                (self.pidfds[number],) = fds
                return Spawned(number, value)
            case "exited":
                os.close(self.pidfds.pop(number))
                return Exited(number, os.waitstatus_to_exitcode(value))
            case "refused":
                return Refused(number, value)
            case "pong":
                return Pong(number)
        assert kind == "ready", kind
        return ServerReady(number)

    # -- the end -------------------------------------------------------------------------------

    def await_end(self, timeout_s: float) -> None:
        """Wait until the server has ended by itself, so that its exit code is its own."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        poll.poll(timeout_s * 1000)

    def confirm_all_dead(self, timeout_s: float) -> bool:
        """Kill the server and every child, wait until they are gone, let go of them; False if some are not in time."""
        for pidfd in (self.pidfd, *self.pidfds.values()):
            _send_signal(pidfd, signal.SIGKILL)
        waiting = {self.pidfd, *self.pidfds.values()}
        poll = select.poll()
        for pidfd in waiting:
            poll.register(pidfd, select.POLLIN)
        while waiting:
            dead = poll.poll(timeout_s * 1000)
            if not dead:
                break
            for pidfd, _ in dead:
                poll.unregister(pidfd)
                waiting.discard(pidfd)
        self.close()
        return not waiting

    def close(self) -> None:
        """Let go of a dead server."""
        self.closed = True
        _, status = os.waitpid(self.pid, 0)
        self.exit_code = os.waitstatus_to_exitcode(status)
        for pidfd in (self.pidfd, *self.pidfds.values()):
            os.close(pidfd)
        self.pidfds.clear()
        for _, fds in self._outbox:
            for fd in fds:
                os.close(fd)
        self._outbox.clear()
        self.socket.close()
