"""Options and output that several commands share."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import click

from zafka.client.addresses import DEFAULT_BOOTSTRAP

Command = TypeVar("Command", bound=Callable[..., Any])


def bootstrap_option(command: Command) -> Command:
    """--bootstrap-server, or --brokers, or ZAFKA_BOOTSTRAP, or 127.0.0.1:9092."""
    return click.option(
        "--bootstrap-server", "--brokers", "-b", "bootstrap", metavar="ADDRESS", envvar="ZAFKA_BOOTSTRAP",
        default=DEFAULT_BOOTSTRAP, show_default=True,
        help="host:port of a Kafka listener, or tcp://host:port of a ZeroMQ listener (or ZAFKA_BOOTSTRAP).",
    )(command)


def format_option(command: Command) -> Command:
    return click.option(
        "--format", "form", type=click.Choice(["text", "json", "yaml"]), default="text", show_default=True)(command)


def emit(form: str, data: Any, text: Callable[[], str]) -> None:
    """Print `data` as JSON or YAML, or what `text` makes of it for people."""
    if form == "json":
        click.echo(json.dumps(data, indent=2))
    elif form == "yaml":
        import yaml

        click.echo(yaml.safe_dump(data, sort_keys=False), nl=False)
    else:
        printed = text()
        if printed:
            click.echo(printed)


def columns(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Aligned columns under a header; numbers to the right, also where some are missing ("-"). "" if there are no rows."""
    table = [[str(cell) for cell in row] for row in rows]
    if not table:
        return ""
    numeric = [_are_numbers([row[number] for row in table]) for number in range(len(header))]
    widths = [max(len(row[number]) for row in [list(header), *table]) for number in range(len(header))]
    lines = []
    for row in [list(header), *table]:
        cells = (
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True))
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _are_numbers(cells: list[str]) -> bool:
    told = [cell for cell in cells if cell not in ("", "-")]
    return all(map(str.isdecimal, told)) and bool(told)


def size_text(size_bytes: int) -> str:
    size = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError
