"""`Refused`: a request that an actor may not carry out, as the client is told.

Owns: the class. Used inside of an actor between the rule that refuses and the handler that answers.
"""

from __future__ import annotations

from zafka.transport.kafka.errors import ErrorCode


class Refused(Exception):
    """error: the Kafka error code. message: the reason, for people."""

    def __init__(self, error: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.error = error
        self.message = message
