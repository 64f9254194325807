"""The fork server: a process that has imported what actors need, and becomes one of them on request.

Owns: the children's birth (what every actor process has set up before its shell runs) and their reaping. Started as
`python -m zafka.runtime.forkserver ROOT_PID HUNG_AFTER_S MODULE...` with a socket to the root as descriptor 3
(`runtime/fork_client.py` is the other end). Single-threaded, and no ZeroMQ object exists before a fork.
While it still imports, it forks already whom the modules so far are enough for.
No orphans: it dies with the root (PDEATHSIG) and each actor dies with it; each checks its parent after asking for
that signal. A root that is stopped (SIGSTOP) for longer than HUNG_AFTER_S is continued.
Invariant: a child's process id stays its own until `Exited` was sent, because only this process reaps it.

Messages are datagrams (SOCK_SEQPACKET) of msgpack arrays, descriptors by SCM_RIGHTS:
    root -> server  ["spawn", incarnation, name, modules]  + [memory file with the ActorStart, inherited descriptors...]
    root -> server  ["ping", number, "", []], ["watch", hung after ms, "", []]
    server -> root  ["ready", pid, 0], ["pong", number, 0]
    server -> root  ["spawned", incarnation, pid] + [pidfd], ["exited", incarnation, wait status]
    server -> root  ["refused", incarnation, errno]: no process could be made
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import sys
import time
from collections import deque
from importlib import import_module
from typing import NamedTuple, NoReturn

from zafka.runtime.limits import raise_descriptor_limit
from zafka.runtime.log import configure_logging
from zafka.runtime.preload import import_crc32c, import_structlog

SOCKET_FD = 3
MESSAGE_BYTES_MAX = 4096
FDS_MAX = 250  # of one message; the kernel takes 253
IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PR_SET_PDEATHSIG = 1
# Requests on their way are many young objects and no garbage: with Python's own 700 a busy broker spends a tenth of its
# CPU looking through them.
GC_THRESHOLDS = (50_000, 20, 100)

Message = tuple[str, int, object]


def die_with_parent(parent: int) -> None:
    """Ask to be killed when our parent dies, and end now if it is dead already."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        os._exit(1)


class Request(NamedTuple):
    """A process that is asked for. modules: that it needs; of those that are imported anyway, it waits for them."""

    incarnation: int
    name: str
    modules: tuple[str, ...]
    fds: list[int]


class ForkServer:
    """root: process id of our parent. hung_after_s: how long it may be stopped. modules: still to be imported."""

    def __init__(self, sock: socket.socket, root: int, hung_after_s: float, modules: list[str]) -> None:
        import msgspec

        self._socket = sock
        self._root = root
        self._pid = os.getpid()  # what a child's parent must be; the child itself may ask too late
        self._hung_after_s = hung_after_s
        self._modules = modules
        self._waiting: list[Request] = []  # for modules
        self._stopped_s: float | None = None  # since when the root is seen stopped
        self._incarnations: dict[int, int] = {}  # of each child, by process id
        self._outbox: deque[tuple[bytes, list[int]]] = deque()
        self._encode = msgspec.msgpack.encode
        self._decode = msgspec.msgpack.Decoder(tuple[str, int, str, tuple[str, ...]]).decode
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # the wake-up descriptor does the rest
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)

    def serve(self) -> NoReturn:
        while self._modules:
            self._round(0.0)
            import_module(self._modules[0])
            del self._modules[0]
            waiting, self._waiting = self._waiting, []
            for request in waiting:
                self._spawn(request)
        gc.collect()
        gc.freeze()
        self._tell("ready", os.getpid())
        while True:
            self._round(self._hung_after_s / 4)
            self._watch_root()

    def _round(self, wait_s: float) -> None:
        """Take in what has come, after at most this long."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN | (select.POLLOUT if self._outbox else 0))
        poll.register(self._wake_read, select.POLLIN)
        ready = dict(poll.poll(wait_s * 1000))
        if self._wake_read in ready:
            os.read(self._wake_read, 4096)
        self._reap()
        self._flush()
        if ready.get(self._socket.fileno(), 0) & ~select.POLLOUT:
            self._read()

    # -- requests ------------------------------------------------------------------------------

    def _read(self) -> None:
        try:
            data, fds, _, _ = socket.recv_fds(self._socket, MESSAGE_BYTES_MAX, FDS_MAX)
        except ConnectionResetError:
            data, fds = b"", []  # it closed its end before it had read all that we told
        if not data:
            os._exit(0)  # the root closed its end
        kind, number, name, modules = self._decode(data)
        match kind:
            case "spawn":
                self._spawn(Request(number, name, modules, fds))
            case "ping":
                self._tell("pong", number)
            case "watch":
                self._hung_after_s = number / 1000

    def _spawn(self, request: Request) -> None:
        if not set(request.modules).isdisjoint(self._modules):
            self._waiting.append(request)
            return
        gc.freeze()  # no collection in a child writes to pages that all of them share
        try:
            pid = os.fork()
        except OSError as error:
            self._tell("refused", request.incarnation, error.errno or 0)
        else:
            if pid == 0:
                self._become(request)
            self._incarnations[pid] = request.incarnation
            self._tell("spawned", request.incarnation, pid, [os.pidfd_open(pid)])
        for fd in request.fds:
            os.close(fd)

    def _become(self, request: Request) -> NoReturn:
        """Be this actor from now on, in the forked process."""
        code = 70
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for fd in (self._wake_read, self._wake_write, self._socket.detach()):
                os.close(fd)
            for other in self._waiting:
                for fd in other.fds:
                    os.close(fd)
            die_with_parent(self._pid)
            code = run_actor(request.name, request.fds)
        finally:
            # Without this the exception would go up into the server's own loop.
            if sys.exception() is not None and not isinstance(sys.exception(), SystemExit):
                sys.excepthook(*sys.exc_info())
            sys.stderr.flush()
            os._exit(code)

    # -- children and root ---------------------------------------------------------------------

    def _reap(self) -> None:
        while self._incarnations:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            self._tell("exited", self._incarnations.pop(pid), status)

    def _watch_root(self) -> None:
        """Continue a root that was stopped for too long: nothing would be restarted until somebody did."""
        with open(f"/proc/{self._root}/stat") as file:
            state = file.read().rpartition(")")[2].split()[0]
        now_s = time.monotonic()
        if state != "T":
            self._stopped_s = None
        elif self._stopped_s is None:
            self._stopped_s = now_s
        elif now_s - self._stopped_s > self._hung_after_s:
            os.kill(self._root, signal.SIGCONT)
            self._stopped_s = None

    # -- answers -------------------------------------------------------------------------------

    def _tell(self, kind: str, number: int, value: int = 0, fds: list[int] | None = None) -> None:
        """Never blocks: the root may be stopped, and then we are who continues it."""
        self._outbox.append((self._encode((kind, number, value)), fds or []))
        self._flush()

    def _flush(self) -> None:
        while self._outbox:
            data, fds = self._outbox[0]
            try:
                socket.send_fds(self._socket, [data], fds, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except (BrokenPipeError, ConnectionResetError):
                os._exit(0)
            self._outbox.popleft()
            for fd in fds:
                os.close(fd)


def run_actor(name: str, fds: list[int]) -> int:
    """What an actor process does from its birth: takes over its descriptors and its start, and runs its shell."""
    import msgspec

    from zafka.actors.shell import resolve
    from zafka.actors.start import INHERITED_FD, ActorStart

    start_file, *inherited = fds
    for number, fd in enumerate(inherited, INHERITED_FD):
        os.dup2(fd, number, inheritable=False)
        os.close(fd)
    data = os.pread(start_file, os.fstat(start_file).st_size, 0)
    os.close(start_file)
    start = msgspec.msgpack.decode(data, type=ActorStart)
    _set_title(f"zafka {name}")
    configure_logging(actor=start.name, incarnation=start.incarnation)
    gc.set_threshold(*GC_THRESHOLDS)
    gc.enable()
    code: int = resolve(start.main)(start)
    return code


def _set_title(title: str) -> None:
    from setproctitle import setproctitle, setthreadtitle

    setproctitle(title)
    setthreadtitle(title)


def main(arguments: list[str]) -> NoReturn:
    root, hung_after_s, *modules = arguments
    for number in IGNORED:  # a Ctrl-C goes to the whole process group; the root tells us what to do
        signal.signal(number, signal.SIG_IGN)
    die_with_parent(int(root))
    os.closerange(SOCKET_FD + 1, 2**31 - 1)  # what leaked into us is not for actors
    raise_descriptor_limit()
    gc.disable()
    _set_title("zafka fork server")
    import_structlog()
    import_crc32c()
    sock = socket.socket(fileno=SOCKET_FD)
    ForkServer(sock, int(root), float(hung_after_s), modules).serve()


if __name__ == "__main__":
    main(sys.argv[1:])
