"""A proxy that reads Kafka's frames on their way, so that something can happen at a request or an answer of one client.

Owns: one listening socket on loopback and a thread that moves frames. Clients reach the broker by it if the broker advertises
its address. It changes nothing; whoever is told of a frame may hold the client, or the broker, meanwhile.
"""

from __future__ import annotations

import asyncio
import struct
import threading
from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple, Self

SIZE = struct.Struct(">i")
HEADER = struct.Struct(">hhih")  # API, version, correlation id, length of the client id
NUMBER = struct.Struct(">i")


class Frame(NamedTuple):
    """client_id, api: of the request. is_answer, is_through: whether it is the answer, and has left already."""

    client_id: str
    api: int
    is_answer: bool
    is_through: bool


class FrameProxy:
    """Use it as a context manager. target: a port on loopback. on_frame: told of each frame, before it leaves and after, in the
    proxy's thread."""

    def __init__(self, target: int, on_frame: Callable[[Frame], None]) -> None:
        self.target = target
        self.port = 0
        self._on_frame = on_frame
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        serving = asyncio.run_coroutine_threadsafe(asyncio.start_server(self._serve, "127.0.0.1", 0), self._loop)
        self._server = serving.result()
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _close(self) -> None:
        self._server.close()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            answers, requests = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.close()
            return
        open_requests: dict[int, tuple[str, int]] = {}
        await asyncio.gather(
            self._pass_on(reader, requests, open_requests, are_answers=False),
            self._pass_on(answers, writer, open_requests, are_answers=True))

    async def _pass_on(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, open_requests: dict[int, tuple[str, int]], *,
        are_answers: bool,
    ) -> None:
        try:
            while True:
                size = await source.readexactly(SIZE.size)
                body = await source.readexactly(*SIZE.unpack(size))
                if are_answers:
                    request = open_requests.pop(*NUMBER.unpack_from(body))
                else:
                    api, _, number, length = HEADER.unpack_from(body)
                    request = open_requests[number] = body[HEADER.size:HEADER.size + max(length, 0)].decode(), api
                self._on_frame(Frame(*request, are_answers, is_through=False))
                sink.write(size + body)
                await sink.drain()
                self._on_frame(Frame(*request, are_answers, is_through=True))
        except (asyncio.IncompleteReadError, OSError):
            pass  # one side has ended
        finally:
            sink.close()
