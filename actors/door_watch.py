"""What libzmq does not bound at a ZeroMQ door: the number of connections, and a message whose last part never comes.

Owns: nothing of libzmq's; one descriptor that is spare, so that it can look when none is left. It looks at the
process's own sockets and asks the kernel what each has received: what came and was never read as a message lies in
libzmq's memory. A connection beyond a bound is shut down, and libzmq cleans up.
Invariant: only connections of this door are touched: a socket is held by a descriptor of our own while it is looked at.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Callable, Mapping, Set as AbstractSet
from dataclasses import dataclass

CONNECTIONS_SPARE = 100  # beside those that may have a session: some are on their way in or out
# Of one connection, read by libzmq and not yet by us: requests in flight, or a message without an end.
UNREAD_BYTES_MAX = 256 << 20

NO_DESCRIPTOR = {errno.EMFILE, errno.ENFILE}
_TCP_INFO_BYTES = 192
_BYTES_RECEIVED = struct.Struct("=128xQ")  # tcpi_bytes_received


@dataclass
class Seen:
    """A connection of the door. received, taken: what both counted when it was first seen with a session."""

    fd: int
    received: int
    taken: int


class DoorWatch:
    """One door's. connections_max: at most as many, a few spare ones apart."""

    def __init__(self, port: int, *, connections_max: int, on_bad_peer: Callable[[str, str], None]) -> None:
        self.port = port
        self.connections_max = connections_max + CONNECTIONS_SPARE
        self.on_bad_peer = on_bad_peer
        self._seen: dict[int, Seen] = {}  # by inode, oldest first
        self._others: set[int] = set()  # inodes of sockets that are not this door's
        self._spare: int | None = None
        self._keep_spare()

    def __repr__(self) -> str:
        return f"<DoorWatch {self.port} connections={len(self._seen)}>"

    def sweep(self, taken: Mapping[int, int], elsewhere: AbstractSet[int] = frozenset()) -> None:
        """End what is beyond the bounds. taken: bytes read as messages, by the descriptor that they came by.

        elsewhere: descriptors known to be others' for as long as they are in there: to look at thousands takes long."""
        self.close()
        try:
            self._sweep(taken, elsewhere)
        except OSError as error:
            if error.errno not in NO_DESCRIPTOR:
                raise
            # libzmq took the spare one in between, for a connection: that is looked at the next time.
        finally:
            self._keep_spare()

    def close(self) -> None:
        """Give the spare descriptor back."""
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None

    def _keep_spare(self) -> None:
        with contextlib.suppress(OSError):
            self._spare = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)

    def _sweep(self, taken: Mapping[int, int], elsewhere: AbstractSet[int]) -> None:
        sockets = _own_sockets(elsewhere)
        self._others &= sockets.keys()
        self._seen = {inode: seen for inode, seen in self._seen.items() if inode in sockets}
        for inode, fd in sockets.items():
            if inode not in self._others:
                self._look(inode, fd, taken.get(fd))

    def _look(self, inode: int, fd: int, taken: int | None) -> None:
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(fd)) as held:
            if os.fstat(held.fileno()).st_ino != inode:
                return  # gone, and its number is another's
            peer = _peer_at(held, self.port)
            if peer is None:
                self._others.add(inode)
                return
            (received,) = _BYTES_RECEIVED.unpack_from(held.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES))
            seen = self._seen.get(inode)
            if seen is None:
                # What came before a session's first sight was read by then; without a session nothing was.
                seen = self._seen[inode] = Seen(fd, 0 if taken is None else received, taken or 0)
            unread = received - seen.received - max((taken or 0) - seen.taken, 0)
            if unread > UNREAD_BYTES_MAX:
                self._end(held, peer, f"{unread} bytes of messages that it does not end")
            elif len(self._seen) > self.connections_max:
                del self._seen[inode]
                self._end(held, peer, f"there are {self.connections_max} connections already")

    def _end(self, held: socket.socket, peer: str, reason: str) -> None:
        self.on_bad_peer(peer, reason)
        held.shutdown(socket.SHUT_RDWR)


def _peer_at(held: socket.socket, port: int) -> str | None:
    """Whose connection to this port it is; None if it is no such connection."""
    if held.family not in (socket.AF_INET, socket.AF_INET6) or held.getsockname()[1] != port:
        return None
    try:
        host, peer_port = held.getpeername()[:2]
    except OSError:
        return None  # the listening socket
    return f"{host}:{peer_port}"


def _own_sockets(elsewhere: AbstractSet[int]) -> dict[int, int]:
    """Descriptors of this process's sockets by their inodes, without those elsewhere."""
    sockets = {}
    for fd in map(int, os.listdir("/proc/self/fd")):
        if fd in elsewhere:
            continue
        with contextlib.suppress(OSError):
            target = os.readlink(f"/proc/self/fd/{fd}")
            if target.startswith("socket:["):
                sockets[int(target[8:-1])] = fd
    return sockets
