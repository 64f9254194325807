"""`zafka bench produce|consume|latency|end-to-end`: see `runtime/bench.py`. Any broker, Apache Kafka included.

Owns: options, the bar on a terminal, and how an outcome is told: text, or JSON for machines.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from zafka.runtime.cli import NounGroup
from zafka.runtime.cli.demo import progress_shown
from zafka.runtime.cli.options import bootstrap_option, size_text
from zafka.runtime.cli.produce import CODECS

if TYPE_CHECKING:
    from zafka.runtime.bench import Load, Outcome, Progress

    Measure = Callable[[str, Load, Progress], Outcome]

Command = TypeVar("Command", bound=Callable[..., Any])

SHOWN_EVERY_S = 0.1
TIMESTAMP_BYTES = 8


@click.group(cls=NounGroup)
def bench() -> None:
    """Measure a broker with zafka's own client, on a topic that is made for it and deleted in the end."""


def load_options(*, records: int, rate: float, size_least: int = 0) -> Callable[[Command], Command]:
    """The options that all measurements share. rate: records a second by default; 0: without limit."""
    options = [
        bootstrap_option,
        click.option("-n", "--records", type=click.IntRange(1), default=records, show_default=True, metavar="N"),
        click.option("-s", "--size", type=click.IntRange(size_least), default=100, show_default=True, metavar="BYTES",
                     help="Of each value."),
        click.option("-p", "--partitions", type=click.IntRange(1), default=4, show_default=True, metavar="N"),
        click.option("-r", "--rate", type=click.FloatRange(0, min_open=rate > 0), default=rate, show_default=True,
                     metavar="N", help="Records a second" + ("." if rate else "; 0: as fast as it goes.")),
        click.option("-z", "--compression", type=click.Choice(CODECS), default="none", show_default=True),
        click.option("--acks", type=click.Choice(["all", "1", "0"]), default="all", show_default=True),
        click.option("--config", "configs", multiple=True, metavar="KEY=VALUE",
                     help="Configuration of the topic, such as fsync=os."),
        click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True),
    ]

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def run(measure: Measure, bootstrap: str, form: str, load: Load) -> None:
    import msgspec

    with progress_shown() as show:
        shown_s = 0.0

        def progress(done: int, total: int) -> None:
            nonlocal shown_s
            now_s = time.monotonic()
            if done >= total or now_s - shown_s >= SHOWN_EVERY_S:  # a bar for each record would be the measurement
                shown_s = now_s
                show(measure.__name__.replace("_", " "), done, total)

        found = measure(bootstrap, load, progress)
    if form == "json":
        click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
    else:
        click.echo(as_text(found))


def as_text(found: Outcome) -> str:
    what = f"{found.measurement}  {found.records:,} records of {found.size_bytes:,} B in {found.seconds:.2f} s"
    lines = [
        f"{what}, {found.partitions} partitions, acks={found.acks}, compression {found.compression}",
        f"  {found.records_per_s:,.0f} records/s  {size_text(int(found.mb_per_s * 1e6))}/s",
    ]
    if found.latency_ms is not None:
        lines.append("  " + "  ".join(f"{name} {value:.2f} ms" for name, value in found.latency_ms.items()))
    return "\n".join(lines)


def load_of(given: dict[str, Any]) -> Load:
    from zafka.runtime.bench import Load
    from zafka.runtime.cli.topic import parse_config

    return Load(
        records=given["records"], size_bytes=given["size"], partitions=given["partitions"], rate_per_s=given["rate"],
        compression=given["compression"], acks=given["acks"], config=parse_config(given["configs"]))


@bench.command()
@load_options(records=1_000_000, rate=0)
def produce(bootstrap: str, form: str, **given: Any) -> None:
    """Throughput: from the first record to the last acknowledgement."""
    from zafka.runtime import bench

    run(bench.produce, bootstrap, form, load_of(given))


@bench.command()
@load_options(records=1_000_000, rate=0)
def consume(bootstrap: str, form: str, **given: Any) -> None:
    """Throughput: records are written, then read from the beginning; the reading is measured."""
    from zafka.runtime import bench

    run(bench.consume, bootstrap, form, load_of(given))


@bench.command()
@load_options(records=5_000, rate=500)
def latency(bootstrap: str, form: str, **given: Any) -> None:
    """From sending a record to its acknowledgement, at a rate, each by itself."""
    from zafka.runtime import bench

    run(bench.latency, bootstrap, form, load_of(given))


@bench.command("end-to-end")
@load_options(records=5_000, rate=500, size_least=TIMESTAMP_BYTES)
def end_to_end(bootstrap: str, form: str, **given: Any) -> None:
    """From sending a record to a consumer that has it, at a rate, each by itself."""
    from zafka.runtime import bench

    run(bench.end_to_end, bootstrap, form, load_of(given))
