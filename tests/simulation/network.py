"""Sockets between actors, as ZeroMQ's, with a seeded network in between; `transport/mailbox.py` runs on them unchanged.

Owns: `Context` and `Socket`, what of pyzmq a mailbox uses; `Network`, which delivers. Between two sockets messages
arrive in order, each after a delay of its own, unless a fault of the network says otherwise. A process that is killed
leaves behind a part of what it had sent last; a peer that is gone is noticed a moment later (EHOSTUNREACH).
"""

from __future__ import annotations

from collections import deque
from random import Random
from typing import Any, NamedTuple, Protocol

import zmq

from tests.simulation.engine import Engine

AGAIN = zmq.Again()
NOTICED_S = 0.002  # that a peer is gone
NEVER = float("inf")


class Owner(Protocol):
    """A process, as its sockets see it."""

    name: str
    alive: bool

    def step(self, what: str, where: object = "") -> None: ...

    def wake(self, at_s: float) -> None: ...


class Frame(NamedTuple):
    """What `recv(copy=False)` gives."""

    buffer: memoryview


class Trouble(NamedTuple):
    """What the network does to messages between two actors until it heals. edge: a part of one of the names."""

    until_s: float
    edge: str
    delay_s: float = 0.0
    drop: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0


class Network:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.random: Random = engine.stream("network")
        self.bound: dict[str, Socket] = {}
        self.troubles: list[Trouble] = []

    def trouble(self, source: str, target: str) -> Trouble | None:
        """What is wrong between these two, if anything is."""
        if not self.troubles:
            return None
        now_s = self.engine.now_s
        self.troubles = [each for each in self.troubles if each.until_s > now_s]
        for each in self.troubles:
            if each.edge in source or each.edge in target:
                return each
        return None

    def heal(self) -> None:
        self.troubles = []

    def delay_s(self) -> float:
        chance = self.random.random()
        return 0.00002 + 0.0002 * chance if chance < 0.98 else 0.005 * (chance - 0.98) / 0.02

    def send(self, wire: Wire, sender: Socket, frames: list[bytes]) -> None:
        engine, owner = self.engine, sender.owner
        receiver = wire.router if sender is wire.dealer else wire.dealer
        trouble = self.trouble(owner.name, receiver.owner.name) if receiver is not None else None
        arrival_s, copies, in_order = engine.now_s + self.delay_s(), 1, True
        if trouble is not None:
            arrival_s += trouble.delay_s * self.random.random()
            chance = self.random.random()
            if chance < trouble.drop:
                copies = 0
                engine.counts["messages dropped"] += 1
            elif chance < trouble.drop + trouble.duplicate:
                copies = 2
                engine.counts["messages duplicated"] += 1
            elif chance < trouble.drop + trouble.duplicate + trouble.reorder:
                in_order = False
                arrival_s += 0.01 * self.random.random()
                engine.counts["messages reordered"] += 1
        way = 0 if sender is wire.dealer else 1
        for _ in range(copies):
            if in_order:
                arrival_s = wire.last_s[way] = max(arrival_s, wire.last_s[way] + 1e-9)
            engine.at(arrival_s, self._deliver, wire, way, frames)

    def _deliver(self, wire: Wire, way: int, frames: list[bytes]) -> None:
        now_s = self.engine.now_s
        if now_s > wire.cut_s[way]:
            return  # it was in the sender's buffers when that was killed
        if wire.router is None:
            wire.router = self.bound.get(wire.endpoint)
        receiver = wire.router if way == 0 else wire.dealer
        if receiver is None or receiver.closed or not receiver.owner.alive:
            return
        if way == 0:
            receiver.wires[wire.routing_id] = wire
            frames = [wire.routing_id, *frames]
        self.engine.hash(frames[-1])
        receiver.inbox.append(frames)
        receiver.owner.wake(now_s)

    def end(self, wire: Wire, way: int, *, killed: bool) -> None:
        """One side is gone. killed: some of what it sent last goes with it."""
        now_s = self.engine.now_s
        if killed and self.random.random() < 0.5:
            wire.cut_s[way] = min(wire.cut_s[way], now_s + 0.002 * self.random.random())
        if way == 0 and wire.router is not None:
            self.engine.after(NOTICED_S, self._notice, wire)

    def _notice(self, wire: Wire) -> None:
        if wire.router is not None:
            wire.router.wires.pop(wire.routing_id, None)


class Wire:
    """From a DEALER to the ROUTER that it dialled. Ways: 0 there, 1 back."""

    __slots__ = ("cut_s", "dealer", "endpoint", "last_s", "router", "routing_id")

    def __init__(self, dealer: Socket, endpoint: str, router: Socket | None, routing_id: bytes) -> None:
        self.dealer = dealer
        self.endpoint = endpoint
        self.router = router
        self.routing_id = routing_id
        self.last_s = [0.0, 0.0]
        self.cut_s = [NEVER, NEVER]


class Socket:
    """What a mailbox uses of `zmq.Socket`."""

    def __init__(self, network: Network, owner: Owner, kind: int) -> None:
        self.network = network
        self.owner = owner
        self.kind = kind
        self.closed = False
        self.inbox: deque[list[bytes]] = deque()
        self.wires: dict[bytes, Wire] = {}  # of a ROUTER, by routing id
        self.wire: Wire | None = None  # of a DEALER
        self._identity = b""
        self._endpoint = ""
        self._receiving: deque[bytes] = deque()
        self._sending: list[bytes] = []
        self._target: Wire | None = None

    # -- options and life ------------------------------------------------------------------------

    def set_hwm(self, value: int) -> None:
        pass

    def setsockopt(self, option: int, value: Any) -> None:
        if option == zmq.ROUTING_ID:
            self._identity = value

    def bind(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self.network.bound[endpoint] = self

    def connect(self, endpoint: str) -> None:
        self.wire = Wire(self, endpoint, self.network.bound.get(endpoint), self._identity)

    def close(self, linger: int | None = None) -> None:
        self.end(killed=False)

    def end(self, *, killed: bool) -> None:
        if self.closed:
            return
        self.closed = True
        self.inbox.clear()
        if self._endpoint:
            self.network.bound.pop(self._endpoint, None)
        for wire in self.wires.values():
            self.network.end(wire, 1, killed=killed)
        if self.wire is not None:
            self.network.end(self.wire, 0, killed=killed)

    # -- mail ------------------------------------------------------------------------------------

    def send(self, frame: Any, flags: int = 0, copy: bool = True) -> None:
        if self.kind == zmq.ROUTER and self._target is None:
            self._target = self.wires.get(frame)
            if self._target is None:
                raise zmq.ZMQError(zmq.EHOSTUNREACH)
            return
        if not self._sending:
            try:
                self.owner.step("send")
            except BaseException:
                self._target = None
                raise
        self._sending.append(bytes(frame))
        if not flags & zmq.SNDMORE:
            frames, self._sending = self._sending, []
            wire, self._target = self._target or self.wire, None
            assert wire is not None
            self.network.send(wire, self, frames)

    def recv(self, flags: int = 0, copy: bool = True) -> Any:
        if not self._receiving:
            if not self.inbox:
                raise AGAIN.with_traceback(None)
            self._receiving.extend(self.inbox.popleft())
        frame = self._receiving.popleft()
        return frame if copy else Frame(memoryview(frame))


class Context:
    """Of one process."""

    def __init__(self, network: Network, owner: Owner) -> None:
        self.network = network
        self.owner = owner
        self.sockets: list[Socket] = []

    def socket(self, kind: int) -> Socket:
        socket = Socket(self.network, self.owner, kind)
        self.sockets.append(socket)
        return socket

    def end(self, *, killed: bool) -> None:
        for socket in self.sockets:
            socket.end(killed=killed)
