"""The listening sockets of all brokers, bound before anything starts and kept for the life of `up`.

Owns: the sockets. Each incarnation of a broker gets them as descriptors, so that clients who come while it restarts
wait in the backlog instead of being refused, and a port that was picked stays.
Raises CannotStart if an address cannot be had: which one, for whom, and why.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import time
from collections.abc import Sequence

from zafka.actors.start import INHERITED_FD, ListenerStart
from zafka.runtime.errors import CannotStart
from zafka.runtime.settings import BrokerSettings, ListenerSettings

BACKLOG = 4096
DYING_OWNER_S = 1.0  # a broker that was killed with its supervisor may hold its port for a moment
POLL_S = 0.01


class Listeners:
    """The listening sockets of one broker, in the order of its settings."""

    def __init__(self, broker: BrokerSettings) -> None:
        self.broker = broker
        self.sockets: list[socket.socket] = []
        try:
            for listener in broker.listeners:
                self.sockets.append(_listen(broker.id, listener))
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"<Listeners of broker {self.broker.id}: {', '.join(start.bind for start in self.starts())}>"

    def starts(self) -> list[ListenerStart]:
        """As the broker's process is told: with real ports, and the numbers that the descriptors will have there."""
        return [
            _start(listener, sock, fd)
            for fd, (listener, sock) in enumerate(
                zip(self.broker.listeners, self.sockets, strict=True), INHERITED_FD)
        ]

    def fds(self) -> tuple[int, ...]:
        return tuple(sock.fileno() for sock in self.sockets)

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()


def address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def advertised(starts: Sequence[ListenerStart], protocol: str) -> str | None:
    """Where clients of a protocol go, or None if this broker has no listener for it."""
    for start in starts:
        if start.protocol == protocol:
            return address(start.host, start.port)
    return None


def _start(listener: ListenerSettings, sock: socket.socket, fd: int) -> ListenerStart:
    host, port = sock.getsockname()[:2]
    return ListenerStart(
        name=listener.name, protocol=listener.protocol, bind=address(host, port),
        host=listener.advertise_host, port=listener.advertise_port or port, fd=fd)


def _listen(broker_id: int, listener: ListenerSettings) -> socket.socket:
    """A socket that listens at the listener's address."""
    what = f"broker {broker_id}'s {listener.name} listener: {address(listener.bind_host, listener.bind_port)}"
    try:
        family, kind, protocol, _, sockaddr = socket.getaddrinfo(
            listener.bind_host, listener.bind_port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except socket.gaierror as error:
        raise CannotStart(f"{what}: no such host ({error.strerror}); name an address of this machine") from None
    with contextlib.ExitStack() as undo:
        sock = undo.enter_context(socket.socket(family, kind, protocol))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        give_up_s = time.monotonic() + DYING_OWNER_S
        while True:
            try:
                sock.bind(sockaddr)
                sock.listen(BACKLOG)
                break
            except OSError as error:
                if error.errno == errno.EADDRINUSE and time.monotonic() < give_up_s:
                    time.sleep(POLL_S)
                    continue
                raise CannotStart(f"{what} {_why(error)}") from None
        undo.pop_all()
    sock.setblocking(False)
    return sock


def _why(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "is in use by another process; stop that one or choose another port (0 picks a free one)"
    if error.errno == errno.EADDRNOTAVAIL:
        return "is no address of this machine; bind 127.0.0.1 or one that `ip address` shows"
    if error.errno in (errno.EACCES, errno.EPERM):
        return "may not be bound by this user; ports from 1024 on are free for everybody"
    return f"cannot be bound: {error.strerror}"
