"""What can go wrong in a partition on disk: one root, one class for each answer a caller may give.

Owns: the classes. `kafka_error` is the Kafka error code that fits when a client's request caused it.
Source: org.apache.kafka.common.protocol.Errors.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

UNKNOWN_SERVER_ERROR = -1
NONE = 0
OFFSET_OUT_OF_RANGE = 1
CORRUPT_MESSAGE = 2
MESSAGE_TOO_LARGE = 10
INVALID_TIMESTAMP = 32
INVALID_CONFIG = 40
UNSUPPORTED_FOR_MESSAGE_FORMAT = 43
OUT_OF_ORDER_SEQUENCE_NUMBER = 45
INVALID_PRODUCER_EPOCH = 47
INVALID_TXN_STATE = 48
KAFKA_STORAGE_ERROR = 56
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

    def __init__(self, key: str, reason: str, *, nearest: str = "") -> None:
        super().__init__(f"{key}: {reason}" + (f"; did you mean {nearest}?" if nearest else ""))
        self.key = key
        self.reason = reason
        self.nearest = nearest


class CorruptSnapshot(StorageError):
    """A snapshot, of producers or of a coordinator, whose bytes are damaged; the state is rebuilt from the log instead."""


class DiskFull(StorageError):
    """There is no room for an append. The log is as it was before; it goes on when there is room again."""

    kafka_error = KAFKA_STORAGE_ERROR


class CorruptLog(StorageError):
    """Bytes that were known to be on disk are damaged or missing. They are never cut and never served."""

    kafka_error = KAFKA_STORAGE_ERROR

    def __init__(self, path: Path, *, position: int, offset: int, reason: str) -> None:
        super().__init__(f"{path} is damaged at position {position} (offset {offset}): {reason}")
        self.path, self.position, self.offset, self.reason = path, position, offset, reason


class FailedFlush(StorageError):
    """The disk refused a flush at start-up. The page cache lies from then on, and a later flush may succeed all the
    same: it is not tried again, and what was read is not believed."""

    kafka_error = KAFKA_STORAGE_ERROR


class OffsetOutOfRange(StorageError):
    """No record with this offset is in the log, and none will be where the log ends now."""

    kafka_error = OFFSET_OUT_OF_RANGE

    def __init__(self, offset: int, *, start_offset: int, end_offset: int) -> None:
        super().__init__(f"offset {offset} is outside of {start_offset}..{end_offset}")


class CorruptCheckpoint(StorageError):
    """A recovery checkpoint whose bytes are damaged; the whole log is scanned instead."""


class IndexMismatch(StorageError):
    """An index that does not fit its segment; it is rebuilt."""


class ForeignTopic(StorageError):
    """The directory holds a partition of another topic, or nothing that says of which."""


class DirectoryLocked(StorageError):
    """Another process has this partition's directory open."""
