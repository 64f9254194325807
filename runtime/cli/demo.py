"""`zafka demo`: see `runtime/demo.py`. A short table on stdout; exit code 0 only if everything is proven."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zafka.runtime.demo import Outcome, Progress


@click.command()
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
def demo(file: Path | None) -> int:
    """Stream text through a cluster while its processes are killed, and prove that every line came out once, in order.

    FILE is any text; without it, logs, licences and the standard library's sources of this machine.
    """
    from zafka.runtime.demo import DemoFailed, run_demo
    from zafka.runtime.demo_text import describe, one_file, texts_of_this_machine

    texts = one_file(file) if file is not None else texts_of_this_machine()
    if not sum(text.lines for text in texts):
        raise click.ClickException(f"{file or 'this machine'}: no lines to send")
    click.echo(f"Text: {describe(texts)}", err=True)
    try:
        with progress_shown() as progress:
            outcome = run_demo(texts, progress)
    except DemoFailed as failed:
        raise click.ClickException(str(failed)) from None
    print_outcome(outcome)
    return 0 if outcome.proven else 1


@contextmanager
def progress_shown() -> Iterator[Progress]:
    """A bar on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda what, done, total: None
        return
    from rich.console import Console
    from rich.progress import Progress as Bars

    with Bars(console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, object] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)  # type: ignore[arg-type]

        yield show


def print_outcome(outcome: Outcome) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False)
    table.add_row("records", f"{outcome.lines:,} lines of {outcome.keys:,} files, to 4 partitions")
    table.add_row("sent and acknowledged", f"in {outcome.send_s:.1f} s, {outcome.lines / outcome.send_s:,.0f} a second, "
                                           "each on disk before its acknowledgement")
    table.add_row("processes killed (SIGKILL)", f"{len(outcome.kills)}; restarts: {outcome.restarts}")
    by_kind: dict[str, list[float]] = {}
    for kill in outcome.kills:
        by_kind.setdefault(kill.name.split()[0], []).append(kill.recovery_ms)
    for kind, times_ms in by_kind.items():
        table.add_row(f"  {kind} back after",
                      f"{median(times_ms):.0f} ms (median of {len(times_ms)}), {max(times_ms):.0f} ms at most")
    for name, seconds in outcome.readers.items():
        table.add_row(f"read with {name}", f"in {seconds:.1f} s, {outcome.lines / seconds:,.0f} a second")
    Console().print(table)
    for name, problems in outcome.problems.items():
        for problem in problems:
            click.echo(f"{name}: {problem}")
    click.echo(
        "Proven: every line came through exactly once, unchanged, in order, at its acknowledged offset."
        if outcome.proven else "NOT proven.")
