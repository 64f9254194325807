"""A connection to one listener of a broker, over TCP or through the ZeroMQ door: frames out, frames in, the end.

Owns: sockets. Knows nothing of what the frames say. Lives in the I/O thread; nothing here blocks, but resolving a name.
A connection tells its owner: `on_open` once, `on_frame` for each frame, `on_closed(reason)` once at the end, whatever
the cause. A frame is a Kafka frame without its length prefix.
"""

from __future__ import annotations

import errno
import os
import secrets
import socket
import struct
from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol

import zmq

from zafka.client.addresses import Address
from zafka.client.io_thread import READ, WRITE, IoThread
from zafka.transport.direct import Told, Where, encode, read_told
from zafka.transport.door import (
    FRAME_BYTES_MAX,
    GOODBYE,
    WHERE,
    BadDoorMessage,
    Buffer,
    read_message,
    set_door_options,
    write_message,
)

_LENGTH = struct.Struct(">i")
# What a monitor's socket says first: event and value. zmq.utils.monitor would read it, and import asyncio for that.
_MONITOR_EVENT = struct.Struct("=Hi")
_SCRATCH_BYTES = 64 * 1024
NOT_KAFKA = "what answers there does not speak Kafka's protocol"
_FIRST_PIECE_BYTES = 1 << 20  # of a large frame: announcing much gets a broker not more than this
_BUFFERS_PER_WRITE = 64
_REQUEST_FRAMES_MAX = 100


class Owner(Protocol):
    def on_open(self) -> None: ...

    def on_frame(self, frame: memoryview) -> None: ...

    def on_closed(self, reason: str) -> None: ...


class DoorOwner(Owner, Protocol):
    def on_told(self, told: Told) -> None:
        """The broker says where a partition is."""
        ...


class Connection(Protocol):
    def send(self, chunks: Sequence[Buffer]) -> None:
        """Queue one frame. Never blocks; an error comes as `on_closed`."""
        ...

    def close(self, reason: str) -> None: ...


def connect(io: IoThread, address: Address, owner: DoorOwner) -> Connection:
    """Begin to connect. A failure comes as `on_closed`, perhaps before this returns."""
    return DoorConnection(io, address, owner) if address.is_zmq else TcpConnection(io, address, owner)


def _resolve(host: str, port: int) -> list[tuple[socket.AddressFamily, Any]]:
    """Families and socket addresses of a host. Raises OSError with a readable text."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        raise OSError(f"the host name {host!r} is not known ({error})") from error
    return [(family, (str(where[0]), int(where[1]))) for family, _, _, _, where in found]


class TcpConnection:
    """Kafka's own framing: four bytes of length, then the frame."""

    def __init__(self, io: IoThread, address: Address, owner: Owner) -> None:
        self._io = io
        self._address = address
        self._owner = owner
        self._candidates: list[tuple[socket.AddressFamily, Any]] = []
        self._socket: socket.socket | None = None
        self._is_open = False
        self._closed = False
        self._out: deque[memoryview] = deque()
        self._scratch = bytearray(_SCRATCH_BYTES)
        self._start = b""  # of a frame that is not all there, its length included
        self._frame: bytearray | None = None  # a large frame that is being received in place, or its first piece
        self._frame_size = 0
        self._filled = 0
        try:
            self._candidates = self._find(address)
        except OSError as error:
            self.close(str(error))
            return
        self._connect_next("no address")

    def _find(self, address: Address) -> list[tuple[socket.AddressFamily, Any]]:
        return _resolve(address.host, address.port)

    def _connect_next(self, reason: str) -> None:
        """Try the next address of the host: localhost is often ::1 first."""
        while self._candidates:
            family, where = self._candidates.pop(0)
            self._socket = sock = socket.socket(family, socket.SOCK_STREAM)
            sock.setblocking(False)
            is_tcp = not isinstance(where, str)
            if is_tcp:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            code = sock.connect_ex(where)
            if code == 0 or (is_tcp and code in (errno.EINPROGRESS, errno.EWOULDBLOCK)):
                self._io.watch(sock.fileno(), self._on_connecting, WRITE)
                return
            sock.close()
            self._socket = None
            reason = os.strerror(code)
        self.close(reason.lower())

    def _on_connecting(self, _: int) -> None:
        assert self._socket is not None
        code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._drop_socket()
            self._connect_next(os.strerror(code))
            return
        self._is_open = True
        self._io.watch(self._socket.fileno(), self._on_ready, READ)
        self._owner.on_open()

    def send(self, chunks: Sequence[Buffer]) -> None:
        if self._closed:
            return
        self._out.append(memoryview(_LENGTH.pack(sum(map(len, chunks)))))
        self._out.extend(memoryview(chunk) for chunk in chunks if len(chunk))
        self._write()

    def close(self, reason: str) -> None:
        if self._closed:
            return
        self._closed = True
        self._drop_socket()
        self._out.clear()
        self._owner.on_closed(reason)

    def _drop_socket(self) -> None:
        if self._socket is not None:
            self._io.unwatch(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _on_ready(self, events: int) -> None:
        if events & WRITE:
            self._write()
        if events & ~WRITE and self._socket is not None:
            self._read()

    def _write(self) -> None:
        """Write what the socket takes; what is left waits until it is writable."""
        if self._socket is None or not self._is_open:
            return
        out = self._out
        blocked = False
        while out and not blocked:
            buffers = [out[i] for i in range(min(len(out), _BUFFERS_PER_WRITE))]
            try:
                written = self._socket.sendmsg(buffers)
            except BlockingIOError:
                written, blocked = 0, True
            except OSError as error:
                self.close(_reason(error))
                return
            blocked = blocked or written < sum(map(len, buffers))
            while out and written >= len(out[0]):
                written -= len(out.popleft())
            if written:
                out[0] = out[0][written:]
        self._io.watch(self._socket.fileno(), self._on_ready, READ | WRITE if out else READ)

    def _read(self) -> None:
        assert self._socket is not None
        try:
            if self._frame is not None:
                got = self._socket.recv_into(memoryview(self._frame)[self._filled :])
            else:
                got = self._socket.recv_into(self._scratch)
        except BlockingIOError:
            return
        except OSError as error:
            self.close(_reason(error))
            return
        if got == 0:
            self.close("the broker closed the connection")
        elif self._frame is None:
            self._split(self._start + bytes(memoryview(self._scratch)[:got]))
        else:
            self._filled += got
            if self._filled == self._frame_size:
                frame, self._frame = self._frame, None
                self._owner.on_frame(memoryview(frame))
            elif self._filled == len(self._frame):
                self._frame += bytes(self._frame_size - self._filled)

    def _split(self, data: bytes) -> None:
        """Deliver the whole frames in `data` and keep the start of the next one."""
        view = memoryview(data)
        position = 0
        while len(view) - position >= _LENGTH.size and not self._closed:
            (length,) = _LENGTH.unpack_from(view, position)
            if not 0 < length <= FRAME_BYTES_MAX:
                self.close(f"{NOT_KAFKA}{self._hint(data[:2])}")
                return
            end = position + _LENGTH.size + length
            if end > len(view):
                if length > _SCRATCH_BYTES // 2:
                    self._receive_in_place(view[position + _LENGTH.size :], length)
                    return
                break
            self._owner.on_frame(view[position + _LENGTH.size : end])
            position = end
        self._start = bytes(view[position:])

    def _hint(self, start: bytes) -> str:
        if start[0] == 0xFF:  # a ZeroMQ listener greets first
            return f"; for its ZeroMQ door write tcp://{self._address}"
        if start == b"\x15\x03":  # an alert
            return ", but TLS, which is not supported yet"
        return ", but HTTP" if start == b"HT" else ""

    def _receive_in_place(self, head: memoryview, length: int) -> None:
        self._frame = bytearray(min(length, _FIRST_PIECE_BYTES))
        self._frame_size = length
        self._frame[: len(head)] = head
        self._filled = len(head)
        self._start = b""


class UnixConnection(TcpConnection):
    """The same framing over a Unix socket."""

    def __init__(self, io: IoThread, path: str, owner: Owner) -> None:
        super().__init__(io, Address("unix", path, 0), owner)

    def _find(self, address: Address) -> list[tuple[socket.AddressFamily, Any]]:
        return [(socket.AF_UNIX, address.host)]


class DoorConnection:
    """The ZeroMQ door: a DEALER that lives for one connection to one incarnation of the broker, never longer.

    ZeroMQ must not reconnect by itself: it would hand what is queued to a successor. A monitor tells of the end.
    """

    def __init__(self, io: IoThread, address: Address, owner: DoorOwner) -> None:
        self._io = io
        self._owner = owner
        self._closed = False
        self._session = secrets.randbits(62)
        self._incarnation: int | None = None
        self._connected = False
        self._socket: zmq.Socket[bytes] | None = None
        self._monitor: zmq.Socket[bytes] | None = None
        try:
            endpoint = _door_endpoint(address)
            self._socket = zmq.Context.instance().socket(zmq.DEALER)
            set_door_options(self._socket)
            self._socket.setsockopt(zmq.RECONNECT_IVL, -1)
            self._socket.setsockopt(zmq.IPV6, 1)
            self._monitor = self._socket.get_monitor_socket()
            self._socket.connect(endpoint)
        except (OSError, zmq.ZMQError) as error:
            self.close(_reason(error))
            return
        io.watch(self._monitor, self._on_event)
        io.watch(self._socket, self._on_readable)
        self._transmit(write_message(self._session, 0))

    def send(self, chunks: Sequence[Buffer]) -> None:
        if self._incarnation is None:
            return
        # One frame, as the door asks for: joining costs one copy, ZeroMQ makes none then.
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self._transmit(write_message(self._session, self._incarnation, body))

    def ask_where(self, topic: str, partition: int) -> None:
        """Ask for the way past the broker to a partition; `Owner.on_told` follows, or nothing at all."""
        if self._incarnation is not None:
            self._transmit(write_message(self._session, WHERE, encode(Where(topic, partition))))

    def _on_told(self, body: Buffer) -> None:
        try:
            told = read_told(body)
        except BadDoorMessage as error:
            self.close(str(error))
            return
        self._owner.on_told(told)

    def close(self, reason: str) -> None:
        if self._closed:
            return
        self._closed = True
        if self._socket is not None:
            if self._incarnation is not None:
                self._transmit(write_message(self._session, GOODBYE))
            self._io.unwatch(self._socket)
            self._socket.disable_monitor()
            # Long enough for the goodbye of a healthy connection; never waited for by us.
            self._socket.close(linger=0 if self._incarnation is None else 100)
        if self._monitor is not None:
            self._io.unwatch(self._monitor)
            self._monitor.close(linger=0)
        self._owner.on_closed(reason)

    def _transmit(self, frames: Sequence[Buffer]) -> None:
        assert self._socket is not None
        try:
            self._socket.send_multipart(frames, zmq.NOBLOCK, copy=False)
        except zmq.Again:
            self.close("the connection takes no more messages")
        except zmq.ZMQError as error:
            self.close(_reason(error))

    def _on_event(self, _: int) -> None:
        assert self._monitor is not None
        while not self._closed:
            try:
                kind, value = _MONITOR_EVENT.unpack(self._monitor.recv_multipart(zmq.NOBLOCK)[0])
            except zmq.Again:
                return
            if kind == zmq.EVENT_CONNECTED:
                self._connected = True
            elif kind in (zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL, zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL):
                self._end(
                    "what answers there does not speak ZeroMQ; for Kafka's protocol write host:port without tcp://"
                )
            elif kind == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                self._end("the door refused our credentials")
            elif kind == zmq.EVENT_DISCONNECTED:
                self._end("the broker closed the connection")
            elif kind == zmq.EVENT_CLOSED and not self._connected:
                self._end("connection refused" if value >= 0 else os.strerror(-value))

    def _end(self, reason: str) -> None:
        """Take what came before the end, then close: it will not answer any more."""
        self._on_readable(0)
        self._incarnation = None
        self.close(reason)

    def _on_readable(self, _: int) -> None:
        # Bounded, so that one busy connection does not keep the others waiting.
        for _ in range(_REQUEST_FRAMES_MAX):
            if self._closed or self._socket is None:
                return
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            self._on_message([frame.buffer for frame in frames])

    def _on_message(self, frames: list[memoryview]) -> None:
        try:
            message = read_message(frames)
        except BadDoorMessage as error:
            self.close(f"what answers there is not a zafka door: {error}")
            return
        if message.session != self._session:
            return
        if message.incarnation == WHERE:
            self._on_told(message.body)
            return
        if message.incarnation == GOODBYE:
            self._incarnation = None
            self.close("the broker closed the session")
        elif self._incarnation is None:
            self._incarnation = message.incarnation
            self._owner.on_open()
        elif message.incarnation != self._incarnation:
            self._incarnation = None
            self.close("the broker was restarted")
        elif len(message.body):
            self._owner.on_frame(memoryview(message.body))


def _door_endpoint(address: Address) -> str:
    """What ZeroMQ connects to; names are resolved by us, since ZeroMQ says nothing of one it does not know."""
    if address.protocol == "ipc":
        return f"ipc://{address.host}"
    found = _resolve(address.host, address.port)
    # Doors are bound to IPv4 loopback by default, and ZeroMQ tries one address only.
    family, (host, port) = next((one for one in found if one[0] == socket.AF_INET), found[0])
    return f"tcp://[{host}]:{port}" if family == socket.AF_INET6 else f"tcp://{host}:{port}"


def _reason(error: OSError | zmq.ZMQError) -> str:
    if isinstance(error, zmq.ZMQError) or error.errno is None:
        return str(error)
    return os.strerror(error.errno).lower()
