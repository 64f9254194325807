"""An event loop in a thread of its own, for clients that are asynchronous.

It goes on between the calls of a case, as it does in a program.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from tests.clients.matrix.driver import TIMEOUT_S

Result = TypeVar("Result")


class Loop:
    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def run(self, steps: Coroutine[Any, Any, Result], timeout_s: float = 2 * TIMEOUT_S) -> Result:
        """Run it in the loop, to its end."""
        return asyncio.run_coroutine_threadsafe(steps, self.loop).result(timeout_s)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()
