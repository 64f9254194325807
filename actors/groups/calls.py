"""What the machines of a group coordinator take and give: requests of clients in; records, answers and timers out.

Owns: `Call`, one request of a client; `Outbox`, what one turn of a coordinator wants done. The machines
(`offsets.py`, `classic.py`, `consumer.py`) decide and touch nothing else, so the simulator runs them as they are.
Invariant: the machines' state runs ahead of the log; an answer leaves once every record that was appended before the
end of its turn is committed, so nobody is told what a crash could take back.
Source: Kafka CoordinatorRuntime, CoordinatorResult.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from zafka.actors.actor import Peer


class Call(NamedTuple):
    """One request, as the broker passed it on. Answered exactly once, at any later time.

    peer, request_id: which question of which broker this is. client_host: as Kafka shows it, "/127.0.0.1".
    """

    peer: Peer
    request_id: int
    api_key: int
    version: int
    client_id: str
    client_host: str


class Outbox:
    """What a turn wants done, in order.

    records: key and value, None for a tombstone, as `records.py` encodes them.
    answers: a call and the struct of its answer. timers: by name, the monotonic time; None cancels.
    """

    __slots__ = ("answers", "records", "timers")

    def __init__(self) -> None:
        self.records: list[tuple[bytes, bytes | None]] = []
        self.answers: list[tuple[Call, Any]] = []
        self.timers: dict[str, float | None] = {}

    def append(self, key: bytes, value: bytes | None) -> None:
        self.records.append((key, value))

    def answer(self, call: Call, response: Any) -> None:
        self.answers.append((call, response))

    def set_timer(self, name: str, at_s: float) -> None:
        self.timers[name] = at_s

    def cancel_timer(self, name: str) -> None:
        self.timers[name] = None
