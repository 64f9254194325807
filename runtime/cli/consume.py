"""`zafka consume`: records of a topic to standard output, with kcat's habits."""

from __future__ import annotations

import base64
import contextlib
import json
import signal
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from zafka.runtime.cli.completion import group_names, topic_names
from zafka.runtime.cli.options import bootstrap_option
from zafka.runtime.cli.record_format import Write, compile_format

if TYPE_CHECKING:
    from zafka.client.consumer import Consumer
    from zafka.client.records import Record, TopicPartition

POLL_S = 0.25
POLL_RECORDS = 5000
WRITE_S = 1.0  # for what is being written when we are told to end


class Range(NamedTuple):
    """Offsets [start, stop) of one partition; stop None: without end."""

    start: int
    stop: int | None


@click.command()
@click.argument("topic", shell_complete=topic_names)
@bootstrap_option
@click.option("-o", "--offset", "offsets", multiple=True, metavar="OFFSET",
              help="beginning (default), end, an offset, -N (the last N), s@MS (from this time), e@MS (up to it).")
@click.option("-p", "--partition", "partitions", multiple=True, type=click.IntRange(0), help="These only; by default all.")
@click.option("-e", "--exit", "exit_at_end", is_flag=True, help="Stop at what is the end now.")
@click.option("-c", "--count", type=click.IntRange(1), metavar="N", help="Stop after N records.")
@click.option("-f", "--format", "form", metavar="FORMAT",
              help=r"Such as '%t %p %o %k %s\n'; also %T time, %h headers, %S %K sizes, %R value after its size.")
@click.option("-J", "--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option("-K", "--key-delimiter", metavar="TEXT", help="Print key, this, and value.")
@click.option("-D", "--delimiter", default="\\n", show_default=True, metavar="TEXT", help="After each record.")
@click.option("-Z", "--null", is_flag=True, help="Print NULL where there is no value or key.")
@click.option("-G", "--group", metavar="NAME", shell_complete=group_names,
              help="Share the partitions with others of this group, and go on where it has committed.")
def consume(
    topic: str, bootstrap: str, offsets: tuple[str, ...], partitions: tuple[int, ...], exit_at_end: bool,
    count: int | None, form: str | None, as_json: bool, key_delimiter: str | None, delimiter: str, null: bool,
    group: str | None,
) -> None:
    """Print the records of TOPIC, and wait for more until Ctrl-C."""
    if group is not None and (offsets or partitions):
        raise click.UsageError("--group decides what is read and from where; `zafka group seek` moves it")
    if sum((form is not None, as_json, key_delimiter is not None)) > 1:
        raise click.UsageError("--format, --json and --key-delimiter each say what is printed: use one of them")
    if as_json:
        write: Write = json_line
    else:
        plain = form if form is not None else f"%k{key_delimiter}%s{delimiter}" if key_delimiter else f"%s{delimiter}"
        write = compile_format(plain, null=b"NULL" if null else b"")
    from zafka.client.consumer import Consumer

    with until_interrupted() as interrupts:
        if group is not None:
            with Consumer(topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest", group_id=group) as consumer:
                copy_share(consumer, write, count, interrupts, exit_at_end=exit_at_end)
            return
        with Consumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest") as consumer:
            ranges = find_ranges(consumer, topic, partitions, offsets, exit_at_end=exit_at_end)
            copy(consumer, ranges, write, count)


class Interrupts:
    """Ctrl-C, and SIGTERM, which is what others send. They end what runs at once; or, while `hold()` lasts, are noted only,
    so that what is printed and what is committed do not part. A write that nobody takes is ended all the same."""

    def __init__(self) -> None:
        self.is_asked = False  # while held
        self._is_held = False
        self._is_writing = False
        self._again: threading.Timer | None = None

    def on_signal(self, number: int, frame: object) -> None:
        if not self._is_held or (self.is_asked and self._is_writing):
            raise KeyboardInterrupt
        self.is_asked = True
        if self._is_writing and sys.platform != "win32":  # is it taken by then?
            self._again = threading.Timer(WRITE_S, signal.pthread_kill, (threading.get_ident(), number))
            self._again.daemon = True
            self._again.start()

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        self._is_held = True
        try:
            yield
        finally:
            if self._again is not None:
                self._again.cancel()
                self._again.join()
            self._is_held = False

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Raises KeyboardInterrupt from what is inside, if that goes on for WRITE_S after a signal, or at a second one."""
        self._is_writing = True
        try:
            yield
        finally:
            self._is_writing = False


@contextlib.contextmanager
def until_interrupted() -> Iterator[Interrupts]:
    interrupts = Interrupts()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:  # a shell's background jobs are not told of Ctrl-C
                signal.signal(number, interrupts.on_signal)
        yield interrupts
    except KeyboardInterrupt:
        pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def find_ranges(
    consumer: Consumer, topic: str, only: tuple[int, ...], offsets: tuple[str, ...], *, exit_at_end: bool
) -> dict[TopicPartition, Range]:
    """What is to be read of each partition. Empty ranges are left out."""
    from zafka.client.records import TopicPartition

    there = sorted(consumer.partitions_for_topic(topic))
    for partition in only:
        if partition not in there:
            raise click.UsageError(f"{topic} has partitions 0 to {there[-1]}, not {partition}")
    where = [TopicPartition(topic, partition) for partition in only or there]
    first, end = consumer.beginning_offsets(where), consumer.end_offsets(where)
    starts: dict[TopicPartition, int] = first
    stops: dict[TopicPartition, int | None] = dict(end) if exit_at_end else dict.fromkeys(where)
    for text in offsets or ("beginning",):
        kind, at, time_text = text.partition("@")
        if at and kind in ("s", "e"):
            found = consumer.offsets_for_times(dict.fromkeys(where, whole_number(time_text, text)))
            told = {one: found_at.offset if (found_at := found[one]) else end[one] for one in where}
            if kind == "s":
                starts = told
            else:
                stops = dict(told)
        elif text in ("beginning", "earliest"):
            starts = first
        elif text in ("end", "latest"):
            starts = end
        else:
            number = whole_number(text, text)
            starts = {
                one: max(first[one], end[one] + number) if text.startswith("-") else number for one in where}
    ranges = {one: Range(starts[one], stops[one]) for one in where}
    return {one: span for one, span in ranges.items() if span.stop is None or span.start < span.stop}


def whole_number(text: str, option: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise click.UsageError(
            f"--offset must be beginning, end, a number, s@milliseconds or e@milliseconds, not {option!r}") from None


def copy(consumer: Consumer, ranges: dict[TopicPartition, Range], write: Write, count: int | None) -> None:
    """Print what `ranges` name, at most `count` records."""
    if not ranges:
        return
    consumer.assign(ranges)
    for where, span in ranges.items():
        consumer.seek(where, span.start)
    open_ends: dict[tuple[str, int], int | None] = {where: span.stop for where, span in ranges.items()}
    left = count if count is not None else sys.maxsize
    while open_ends and left:
        printed: list[bytes] = []
        for record in consumer.poll(POLL_S, min(POLL_RECORDS, left)):
            stop = open_ends.get((record.topic, record.partition), 0)  # 0: its end was reached
            if stop is None or record.offset < stop:
                printed.append(write(record))
        put(b"".join(printed))
        left -= len(printed)
        for read, stop in list(open_ends.items()):
            if stop is not None and consumer.position(read) >= stop:
                del open_ends[read]
                consumer.pause(read)


def put(data: bytes) -> None:
    """All of it, to standard output: without a buffer (PYTHONUNBUFFERED), a write ends early where a signal comes."""
    out, rest = sys.stdout.buffer, memoryview(data)
    while rest:
        rest = rest[out.write(rest) or 0:]
    out.flush()


def copy_share(
    consumer: Consumer, write: Write, count: int | None, interrupts: Interrupts, *, exit_at_end: bool
) -> None:
    """Print what the group gives us. What is printed is committed while others are read, and when the consumer is closed."""
    left = count if count is not None else sys.maxsize
    with interrupts.hold():
        while left and not interrupts.is_asked:
            records = consumer.poll(POLL_S, min(POLL_RECORDS, left))
            is_printed = False
            try:
                with interrupts.writing():
                    put(b"".join(map(write, records)))
                    is_printed = True
            finally:
                if not is_printed:  # nobody reads us any more, or takes it: these come again
                    for record in reversed(records):
                        consumer.seek((record.topic, record.partition), record.offset)
            left -= len(records)
            behind = consumer.lag().values()
            if exit_at_end and not records and behind and not any(behind):
                return


def json_line(record: Record) -> bytes:
    """kcat's envelope. What is not UTF-8 stands under `payload_base64`, `key_base64`."""
    line: dict[str, Any] = {
        "topic": record.topic, "partition": record.partition, "offset": record.offset,
        "tstype": "create" if record.timestamp_type == 0 else "logappend", "ts": record.timestamp,
    }
    if record.headers:
        line["headers"] = [
            part for name, value in record.headers
            for part in (name, value.decode(errors="replace") if value is not None else None)]
    for name, data in (("key", record.key), ("payload", record.value)):
        try:
            line[name] = None if data is None else data.decode()
        except UnicodeDecodeError:
            line[name] = None
            line[f"{name}_base64"] = base64.b64encode(data or b"").decode()
    return json.dumps(line, ensure_ascii=False).encode() + b"\n"
