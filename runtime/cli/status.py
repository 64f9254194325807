"""`zafka status`: the actors of a running cluster, as a tree for people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from zafka.runtime.cli.options import columns, emit, format_option, size_text

HEADER = ("actor", "state", "pid", "incarnation", "restarts", "up", "mailbox", "memory", "last end")


@click.command()
@click.argument("topology", required=False, type=click.Path(path_type=Path))
@click.option("--data-dir", envvar="ZAFKA_DATA_DIR", metavar="FOLDER", help="Above the file's data_dir (or ZAFKA_DATA_DIR).")
@format_option
def status(topology: Path | None, data_dir: str | None, form: str) -> None:
    """Show the actors of the cluster that runs from TOPOLOGY, or without a file from ./zafka-data."""
    from zafka.runtime.control import read_status
    from zafka.runtime.topology import Changes, load_topology

    found = read_status(load_topology(topology, Changes(data_dir=data_dir)).data_dir)
    emit(form, found, lambda: as_tree(found))


def as_tree(found: dict[str, Any]) -> str:
    """Supervisor, coordinator, and each broker with its partitions."""
    actors = found["actors"]
    rows = []
    for actor in sorted(actors, key=lambda actor: _place(actor["kind"], actor["broker"], actor["name"])):
        depth = {"supervisor": 0, "partition": 2}.get(actor["kind"], 1)
        branch = "" if depth == 0 else "   " * (depth - 1) + "└─ "
        rows.append((
            branch + actor["name"], actor["state"], actor["pid"], actor["incarnation"], actor["restarts"],
            _span(actor["uptime_s"]), actor["mailbox"], size_text(actor["memory_bytes"]), actor["last_exit"] or "-"))
    total = size_text(sum(actor["memory_bytes"] for actor in actors))
    return f"cluster {found['cluster']}, {len(actors)} processes, {total}\n{columns(HEADER, rows)}"


def _place(kind: str, broker: int | None, name: str) -> tuple[int, int, int, str, int]:
    """Partition 10 comes after partition 9."""
    order = {"supervisor": 0, "fork server": 1, "coordinator": 2}.get(kind, 3)
    topic, _, number = name.rpartition("-") if kind == "partition" else (name, "", "0")
    return order, -1 if broker is None else broker, int(kind == "partition"), topic, int(number)


def _span(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, hours = seconds / 60, seconds / 3600
    return f"{minutes:.0f} min" if minutes < 60 else f"{hours:.1f} h"
