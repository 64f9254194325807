"""What can go wrong in a partition on disk: one root, one class for each answer a caller may give.

Owns: the classes. `kafka_error` is the Kafka error code that fits when a client's request caused it.
Source: org.apache.kafka.common.protocol.Errors.
"""

from __future__ import annotations

from typing import ClassVar

UNKNOWN_SERVER_ERROR = -1
NONE = 0
CORRUPT_MESSAGE = 2
MESSAGE_TOO_LARGE = 10
INVALID_TIMESTAMP = 32
INVALID_CONFIG = 40
UNSUPPORTED_FOR_MESSAGE_FORMAT = 43
OUT_OF_ORDER_SEQUENCE_NUMBER = 45
INVALID_PRODUCER_EPOCH = 47
UNSUPPORTED_COMPRESSION_TYPE = 76
INVALID_RECORD = 87


class StorageError(Exception):
    """Root of all errors of `storage/`."""

    kafka_error: ClassVar[int] = UNKNOWN_SERVER_ERROR


class BadBatch(StorageError):
    """Bytes that are not one acceptable record batch. Its subclasses say why."""

    kafka_error = CORRUPT_MESSAGE


class CorruptBatch(BadBatch):
    """The bytes are damaged: impossible sizes, a CRC that fails, records that do not decode."""


class InvalidBatch(BadBatch):
    """The bytes are whole, but say what no client may say."""

    kafka_error = INVALID_RECORD


class InvalidTimestamp(InvalidBatch):
    """A timestamp outside of what the topic allows, or of a type that only a broker may set."""

    kafka_error = INVALID_TIMESTAMP


class BatchTooLarge(BadBatch):
    """More bytes than the topic, or the memory set aside for decoding, allows."""

    kafka_error = MESSAGE_TOO_LARGE


class UnsupportedMagic(BadBatch):
    """A message format other than v2."""

    kafka_error = UNSUPPORTED_FOR_MESSAGE_FORMAT


class UnsupportedCodec(BadBatch):
    """A compression codec that Kafka does not have."""

    kafka_error = UNSUPPORTED_COMPRESSION_TYPE


class InvalidConfig(StorageError):
    """An unknown topic configuration key, or a value that it cannot have. The message says what would be right."""

    kafka_error = INVALID_CONFIG


class CorruptSnapshot(StorageError):
    """A producer snapshot whose bytes are damaged; the state is rebuilt from the log instead."""
