"""How a client begins and ends, whichever it is.

Owns: `ClientBase`: whether a client is open, and what becomes of one that nobody closed: at the program's end, after a fork,
when it is collected.
"""

from __future__ import annotations

import warnings

from zafka.client.core import Core, close_at_exit, forget
from zafka.client.errors import ZafkaError


class ClientBase:
    _core: Core
    _closed = True  # until all is made

    def _begin(self) -> None:
        """Start, if that may block here."""

    async def _start(self) -> None:
        await self._core.start()
        self._opened()

    def _opened(self) -> None:
        self._closed = False
        close_at_exit(self)

    def _shut(self) -> None:
        """End without waiting for anything."""
        self._closed = True
        forget(self)
        self._core.stop()

    async def _close(self) -> None:
        self._closed = True
        forget(self)
        try:
            await self._core.end()
        except BaseException:  # Ctrl-C, or the task was cancelled: nothing is waited for any more
            self._core.stop()
            raise

    def close_at_exit(self) -> None:
        """The program ends without `close`. May begin what `retire` ends: that is waited for, of all clients at once."""
        self._shut()

    def end_after_fork(self, error: ZafkaError) -> None:
        self._core.ended = error

    def __del__(self) -> None:
        if self._closed or self._core.ended is not None:
            return
        warnings.warn(f"{self!r} was never closed", ResourceWarning, stacklevel=2, source=self)
        self._retire()

    def _retire(self) -> None:
        """Let the I/O thread end by itself: a collector of garbage does not wait."""
        self._core.io.begin_stop()
