"""A TCP proxy between clients and a broker, for what a network does: resets, silence, half-open connections.

Owns: one listening socket on loopback and a thread that moves bytes. Clients reach the broker only through it if the
broker advertises its address. Every fault is over, for new connections, as soon as it is called off.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

RESET = struct.pack("ii", 1, 0)  # linger for no time: close says RST


class _End(asyncio.Protocol):
    """One side of a connection; `other` is the other."""

    def __init__(self, proxy: TcpProxy) -> None:
        self.proxy = proxy
        self.other: _End | None = None
        self.transport: asyncio.Transport | None = None
        self.is_deaf = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.proxy.ends.add(self)
        if self.proxy.is_frozen:
            transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        if self.is_deaf or self.other is None or self.other.transport is None:
            return
        self.other.transport.write(data)

    def connection_lost(self, error: Exception | None) -> None:
        self.proxy.ends.discard(self)
        if self.other is not None and self.other.transport is not None and not self.other.is_deaf:
            self.other.transport.close()

    def pause_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and self.other.transport is not None and not self.proxy.is_frozen:
            self.other.transport.resume_reading()

    def reset(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self.transport.abort()


class _Client(_End):
    """The side of a client; it dials the broker when it comes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert self.transport is not None
        self.transport.pause_reading()
        self.tap = self.proxy.tap() if self.proxy.tap is not None else None
        self.proxy.loop.create_task(self._dial())

    def data_received(self, data: bytes) -> None:
        if self.tap is not None:
            self.tap(data)
        super().data_received(data)

    async def _dial(self) -> None:
        try:
            _, broker = await self.proxy.loop.create_connection(lambda: _End(self.proxy), "127.0.0.1", self.proxy.target)
        except OSError:
            self.reset()  # nobody there
            return
        assert self.transport is not None
        self.other, broker.other = broker, self
        if self.transport.is_closing() and broker.transport is not None:
            broker.transport.close()
        elif not self.proxy.is_frozen:
            self.transport.resume_reading()


class TcpProxy:
    """Use it as a context manager. target: a port on loopback. The faults may be called from any thread.

    tap: makes a function for each connection, which is given a copy of all that its client sends.
    """

    def __init__(self, target: int, tap: Callable[[], Callable[[bytes], None]] | None = None) -> None:
        self.target = target
        self.tap = tap
        self.loop = asyncio.new_event_loop()
        self.ends: set[_End] = set()
        self.is_frozen = False
        self.port = 0
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        listening = asyncio.run_coroutine_threadsafe(
            self.loop.create_server(lambda: _Client(self), "127.0.0.1", 0), self.loop)
        self._server = listening.result()
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._do(self._server.close)
        self.reset()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    def reset(self) -> None:
        """All connections end with a reset, wherever in a frame they are."""
        def reset() -> None:
            for end in list(self.ends):
                end.reset()

        self._do(reset)

    def freeze(self) -> None:
        """Nothing passes, and nobody is told."""
        self._do(lambda: self._set_frozen(True))

    def thaw(self) -> None:
        """What was held back passes."""
        self._do(lambda: self._set_frozen(False))

    def half_open(self) -> None:
        """The broker sees all connections end; clients see nothing, for ever: what they send is swallowed."""
        def cut() -> None:
            for end in list(self.ends):
                if isinstance(end, _Client) and end.other is not None:
                    end.is_deaf = True
                    end.other.reset()

        self._do(cut)

    def _set_frozen(self, is_frozen: bool) -> None:
        self.is_frozen = is_frozen
        for end in self.ends:
            if end.transport is not None and end.other is not None and not end.transport.is_closing():
                end.transport.pause_reading() if is_frozen else end.transport.resume_reading()

    def _do(self, function: Callable[[], object]) -> None:
        """Run it in the proxy's thread, to its end."""
        async def run() -> None:
            function()

        asyncio.run_coroutine_threadsafe(run(), self.loop).result()
