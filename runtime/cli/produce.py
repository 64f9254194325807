"""`zafka produce`: lines of standard input or of files, one record each, with kcat's habits."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from typing import BinaryIO

import click

from zafka.runtime.cli.completion import topic_names
from zafka.runtime.cli.options import bootstrap_option

READ_BYTES = 1024 * 1024
CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "\\": "\\"}


def unescape(text: str) -> bytes:
    r"""\n, \t, \r, \0, \\ and \xNN, as kcat reads them."""
    out = bytearray()
    position = 0
    while position < len(text):
        follower = text[position + 1 : position + 2]
        if text[position] != "\\" or not follower:
            out += text[position].encode()
            position += 1
        elif follower == "x":
            try:
                out.append(int(text[position + 2 : position + 4], 16))
            except ValueError:
                raise click.UsageError(f"{text!r}: \\x needs two hexadecimal digits, such as \\x1e") from None
            position += 4
        elif follower in ESCAPES:
            out += ESCAPES[follower].encode()
            position += 2
        else:
            out += text[position].encode()
            position += 1
    return bytes(out)


def parse_headers(texts: Iterable[str]) -> list[tuple[str, bytes]]:
    headers = []
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise click.UsageError(f"--header takes name=value, not {text!r}")
        headers.append((name, value.encode()))
    return headers


def read_messages(file: BinaryIO, delimiter: bytes) -> Iterator[list[bytes]]:
    """The messages of a stream, as many at a time as have come, so that typed lines go out at once."""
    rest = b""
    while chunk := os.read(file.fileno(), READ_BYTES):
        *messages, rest = (rest + chunk).split(delimiter)
        if messages:
            yield messages
    if rest:
        yield [rest]


def limited(chunks: Iterable[list[bytes]], count: int | None) -> Iterator[list[bytes]]:
    """The first `count` messages."""
    for messages in chunks:
        if count is not None and len(messages) >= count:
            yield messages[:count]
            return
        yield messages
        count = None if count is None else count - len(messages)


@click.command()
@click.argument("topic", shell_complete=topic_names)
@click.argument("files", nargs=-1, type=click.File("rb"))
@bootstrap_option
@click.option("-K", "--key-delimiter", metavar="TEXT", help="What stands between key and value of a line.")
@click.option("-k", "--key", metavar="TEXT", help="The key of all records.")
@click.option("-H", "--header", "headers", multiple=True, metavar="NAME=VALUE", help="A header of all records.")
@click.option("-p", "--partition", type=click.IntRange(0), help="Of all records; by default the key decides.")
@click.option("-D", "--delimiter", default="\\n", show_default=True, metavar="TEXT", help="What ends a message.")
@click.option("-z", "--compression", type=click.Choice(CODECS), default="none", show_default=True)
@click.option("-Z", "--null", is_flag=True, help="An empty value or key is none at all.")
@click.option("-c", "--count", type=click.IntRange(1), metavar="N", help="Stop after N messages.")
@click.option("--acks", type=click.Choice(["all", "1", "0"]), default="all", show_default=True)
@click.option("--timeout", type=click.FloatRange(0.1), default=120.0, show_default=True, metavar="SECONDS",
              help="How long a record may take to be acknowledged.")
def produce(
    topic: str, files: tuple[BinaryIO, ...], bootstrap: str, key_delimiter: str | None, key: str | None,
    headers: tuple[str, ...], partition: int | None, delimiter: str, compression: str, null: bool,
    count: int | None, acks: str, timeout: float,
) -> None:
    """Send each line of FILES, or of standard input, to TOPIC as one record."""
    if key is not None and key_delimiter is not None:
        raise click.UsageError("--key gives all records one key, and --key-delimiter each its own: use one of the two")
    ending = unescape(delimiter)
    if not ending or key_delimiter == "":
        raise click.UsageError("a delimiter must not be empty")
    between = unescape(key_delimiter) if key_delimiter is not None else None
    pairs = parse_headers(headers)
    from zafka.client.producer import Producer

    sources = files or (sys.stdin.buffer,)
    sent = 0
    with Producer(
        bootstrap, acks=acks if acks == "all" else int(acks), compression_type=compression, delivery_timeout=timeout,
    ) as producer:
        producer.partitions_for(topic)  # an unknown topic is told before anything is read
        for messages in limited((chunk for file in sources for chunk in read_messages(file, ending)), count):
            keys: list[bytes | None] | None = None
            values: list[bytes | None] = list(messages)
            if between is not None:
                split = [message.partition(between) for message in messages]
                keys = [head if found else None for head, found, _ in split]
                values = [tail if found else head for head, found, tail in split]
            elif key is not None:
                keys = [key.encode()] * len(values)
            if null:
                values = [value or None for value in values]
                keys = [one or None for one in keys] if keys is not None else None
            producer.send_many(topic, values, keys=keys, headers=pairs or None, partition=partition)
            sent += len(values)
        producer.flush()
    click.echo(f"{sent} record{'' if sent == 1 else 's'} to {topic}", err=True)
