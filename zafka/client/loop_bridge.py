"""From the I/O thread into an event loop: what completed is told once per turn of the loop, never once per record.

Owns: the calls that wait for the loop, and what tasks of the loop wait for. `post` and `notify` are for every thread,
the rest is for the loop's own.
Invariant: at most one wake-up of the loop is on its way. A loop that is closed is told nothing: nobody waits in it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from zafka.client.batches import ProducerBatch
from zafka.client.waiting import STEP_S, Pause, Signal, Steps

Found = TypeVar("Found")


class LoopBridge:
    """See the module. signals: whose changes the client's steps wait for."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *signals: Signal) -> None:
        self.loop = loop
        self._calls: deque[Callable[[], None]] = deque()
        self._is_due = False
        self._changed = False
        self._pausing: set[asyncio.Future[None]] = set()
        self._settling: dict[ProducerBatch, asyncio.Event] = {}
        self._turning = False
        for signal in signals:
            with signal:
                signal.listeners.append(self.notify)

    # -- from any thread -------------------------------------------------------------------------

    def notify(self) -> None:
        """Have all pauses look again."""
        self._changed = True
        self._schedule()

    def post(self, call: Callable[[], None]) -> None:
        """Call `call()` in the loop soon."""
        self._calls.append(call)
        self._schedule()

    def _schedule(self) -> None:
        if not self._is_due:
            self._is_due = True
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self.loop.call_soon_threadsafe(self._serve)

    # -- in the loop -----------------------------------------------------------------------------

    def _serve(self) -> None:
        self._is_due = False  # before looking: who comes later schedules anew
        while self._calls:
            self._calls.popleft()()
        if self._changed:
            self._changed = False
            for future in self._pausing:
                _wake(future)

    async def run(self, steps: Steps[Found]) -> Found:
        """Carry out steps in this task. Cancelling it ends them where they wait, and their `finally` is run."""
        try:
            while True:
                await self._pause(steps.send(None))
        except StopIteration as end:
            result: Found = end.value
            return result
        finally:
            steps.close()

    async def _pause(self, pause: Pause) -> None:
        future = self.loop.create_future()
        self._pausing.add(future)
        self._keep_turning()
        timer = None if pause.timeout_s == float("inf") else self.loop.call_later(pause.timeout_s, _wake, future)
        try:
            if pause.signal.count == pause.seen:  # looked at after the future was added: no change is missed
                await future
        finally:
            self._pausing.discard(future)
            if timer is not None:
                timer.cancel()

    async def settled(self, batch: ProducerBatch) -> None:
        """Wait until a batch is acknowledged or failed."""
        if batch.done:
            return
        event = self._settling.get(batch)
        if event is None:
            event = self._settling[batch] = asyncio.Event()
            # After the tasks that are ready now: they may add records to it. Then lingering would only cost time.
            self.loop.call_soon(batch.hurry_up)
            batch.add_callback(partial(self.post, partial(self._on_settled, batch)))
            self._keep_turning()
        await event.wait()

    def _keep_turning(self) -> None:
        """Have the loop turn now and then while somebody waits: what waiting.py says of Ctrl-C holds for loops, too."""
        if not self._turning:
            self._turning = True
            self.loop.call_later(STEP_S, self._turn)

    def _turn(self) -> None:
        self._turning = False
        if self._pausing or self._settling:
            self._keep_turning()

    def _on_settled(self, batch: ProducerBatch) -> None:
        self._settling.pop(batch).set()


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
