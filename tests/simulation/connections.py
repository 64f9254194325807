"""A client's TCP connection to a broker.

Owns: `Connection`: bytes arrive in order, in both directions, each after a delay; a connection to a broker that does
not take clients yet waits in the listener's backlog, also while the broker is started again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.simulation.machine import Machine
    from tests.simulation.processes import BrokerProcess


class Connection:
    """client: its name. on_frames, on_lost: how the client hears."""

    def __init__(
        self, machine: Machine, number: int, broker_id: int, client: str, *,
        on_frames: Callable[[list[bytes]], None], on_lost: Callable[[], None],
    ) -> None:
        self.machine = machine
        self.id = number
        self.broker_id = broker_id
        self.client = client
        self.open = True
        self._on_frames = on_frames
        self._on_lost = on_lost
        self._broker: BrokerProcess | None = None
        self._unread: deque[bytes] = deque()
        self._paused = False
        self._last_s = [0.0, 0.0]  # arrival of what was sent last, to the broker and back
        self._send(0, machine.on_connect, self)

    def _send(self, way: int, call: Callable[..., None], *arguments: object) -> None:
        arrival_s = max(self.machine.engine.now_s + self.machine.network.delay_s(), self._last_s[way] + 1e-9)
        self._last_s[way] = arrival_s
        self.machine.engine.at(arrival_s, call, *arguments)

    # -- the client's end ------------------------------------------------------------------------

    def send(self, frame: bytes) -> None:
        if self.open:
            self.machine.engine.hash(frame)
            self._send(0, self._arrive, frame)

    def close(self) -> None:
        """The client lets go of it; what it sent may still arrive."""
        if self.open:
            self.open = False
            self._send(0, self._hang_up)

    # -- the broker's end ------------------------------------------------------------------------

    def accept(self, broker: BrokerProcess) -> None:
        self._broker = broker
        broker.accept(self)
        self._read()

    def pause(self, paused: bool) -> None:
        self._paused = paused
        self._read()

    def respond(self, frames: list[bytes]) -> None:
        self._send(1, self._answer, frames)

    def lose(self, *, killed: bool) -> None:
        """The broker's end is closed, or its process is gone: what it wrote before may still arrive."""
        self._broker = None
        self._unread.clear()
        if killed:
            self.machine.engine.after(self.machine.network.delay_s(), self._drop)
        else:
            self._send(1, self._drop)

    # -- arrivals --------------------------------------------------------------------------------

    def _arrive(self, frame: bytes) -> None:
        self._unread.append(frame)
        self._read()

    def _read(self) -> None:
        while self._unread and self._broker is not None and not self._paused:
            self._broker.on_frame(self, self._unread.popleft())

    def _hang_up(self) -> None:
        if self._broker is not None:
            self._broker.on_closed(self)
        self._broker = None
        self.machine.forget_connection(self)

    def _answer(self, frames: list[bytes]) -> None:
        if self.open:
            for frame in frames:
                self.machine.engine.hash(frame)
            self._on_frames(frames)

    def _drop(self) -> None:
        if self.open:
            self.open = False
            self._on_lost()
