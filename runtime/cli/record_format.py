r"""kcat's format strings, such as '%t %p %o %k %s\n'. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from zafka.runtime.cli.produce import unescape

if TYPE_CHECKING:
    from zafka.client.records import Record

Write = Callable[["Record"], bytes]


def _length(data: bytes | None) -> int:
    return -1 if data is None else len(data)


def _headers(record: Record) -> bytes:
    return b",".join(
        name.encode() + b"=" + (b"NULL" if value is None else value) for name, value in record.headers)


def compile_format(text: str, *, null: bytes = b"") -> Write:
    """A function from a record to its bytes. null: what stands for no key or no value.

    Raises click.UsageError for a letter that means nothing.
    """
    letters: dict[str, Write] = {
        "s": lambda record: null if record.value is None else record.value,
        "S": lambda record: b"%d" % _length(record.value),
        "R": lambda record: _length(record.value).to_bytes(4, "big", signed=True) + (record.value or b""),
        "k": lambda record: null if record.key is None else record.key,
        "K": lambda record: b"%d" % _length(record.key),
        "T": lambda record: b"%d" % record.timestamp,
        "t": lambda record: record.topic.encode(),
        "p": lambda record: b"%d" % record.partition,
        "o": lambda record: b"%d" % record.offset,
        "h": _headers,
        "%": lambda record: b"%",
    }
    writers: list[Write] = []
    head, *rest = text.replace("%%", "%\0").split("%")
    if head:
        writers.append(_constant(unescape(head)))
    for part in rest:
        letter = "%" if part.startswith("\0") else part[:1]
        if letter not in letters:
            raise click.UsageError(
                f"--format: %{letter} means nothing; there are %{', %'.join(letters)}")
        writers.append(letters[letter])
        if part[1:]:
            writers.append(_constant(unescape(part[1:])))
    return lambda record: b"".join([write(record) for write in writers])


def _constant(data: bytes) -> Write:
    return lambda record: data
