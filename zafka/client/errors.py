"""What the client raises, under one root, each with a message that says what, where and what would be right.

Owns: the classes and the wording. Nothing here fails.
"""

from __future__ import annotations

from zafka.transport.kafka.errors import ErrorCode


class ZafkaError(Exception):
    """Root of everything that the client raises on purpose."""


class ConfigError(ZafkaError, ValueError):
    """An argument is missing, of the wrong kind or impossible."""


class NotSupportedYet(ZafkaError):
    """The feature exists in Kafka and is not built here yet."""


class ClientClosed(ZafkaError):
    """The object was closed, or its I/O thread died (then `__cause__` says of what)."""


class NoBroker(ZafkaError):
    """Nobody who speaks our protocol answers at any of the bootstrap addresses."""


class ConnectionLost(ZafkaError):
    """The connection ended while an answer was owed. Whether the request was carried out is unknown."""


class RequestTimedOut(ZafkaError):
    """No answer came in time. Whether the request was carried out is unknown."""


class BufferFull(ZafkaError):
    """`buffer_memory` was full for `max_block` seconds: records are produced faster than brokers take them."""


class RecordTooLarge(ZafkaError):
    """One record is larger than `max_request_size`."""


class DeliveryTimeout(ZafkaError):
    """A record was not acknowledged within `delivery_timeout`. It may have been written nevertheless."""


class DeliveryFailed(ZafkaError):
    """Raised by `flush` and `close`: some records failed and nobody looked at their futures."""


class UnknownTopic(ZafkaError):
    """The brokers do not know this topic or partition."""


class OffsetOutOfRange(ZafkaError):
    """A consumer without `auto_offset_reset` asked for an offset that the partition does not have."""


class CommitFailed(ZafkaError):
    """Offsets were not committed: this consumer is no member of the group any more, and others may read its partitions."""


class CorruptRecords(ZafkaError):
    """Record bytes that a broker sent fail their checksum or make no sense."""


class BrokerRefused(ZafkaError):
    """A broker answered with an error that trying again does not mend.

    code: Kafka's error code; name: its name, such as "TOPIC_ALREADY_EXISTS".
    """

    def __init__(self, what: str, code: int, detail: str | None = None) -> None:
        self.code = code
        self.name = error_name(code)
        super().__init__(f"{what}: {detail} ({self.name})" if detail else f"{what}: {self.name}")


def error_name(code: int) -> str:
    """Kafka's name of an error code, or the number if we do not know it."""
    try:
        return ErrorCode(code).name
    except ValueError:
        return f"error {code}"


def is_retriable(code: int) -> bool:
    """True if the same request may succeed later."""
    try:
        return ErrorCode(code).is_retriable
    except ValueError:
        return False
