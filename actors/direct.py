"""What a partition hears of batches that clients hand it straight, and how it answers them.

Owns: names and fields, nothing else. The sockets are `actors/direct_door.py`'s, the layouts `transport/direct.py`'s.
A batch that came this way has a request id below zero; the broker numbers its own from 1 on.
"""

from __future__ import annotations

from typing import NamedTuple

from zafka.actors.actor import Peer
from zafka.actors.messages import ProduceAnswer, ProduceItem

DIRECT = Peer("direct", 0)
"""The sender of the mail below."""


class DirectProduce(NamedTuple):
    """Append one batch, `records` of the mail, if the partition still leads in this epoch. Answered when committed."""

    item: ProduceItem
    leader_epoch: int


class AnswerDirect(NamedTuple):
    """An effect. An error that lets the client try again ends its connection: what it sent behind is not taken."""

    answers: list[ProduceAnswer]


def is_direct(answer: ProduceAnswer) -> bool:
    return answer.request_id < 0
