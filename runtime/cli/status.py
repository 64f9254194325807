"""`zafka status`: the actors of a running cluster, as a tree for people."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from zafka.runtime.cli.options import columns, emit, format_option, size_text

HEADER = ("actor", "state", "pid", "incarnation", "restarts", "up", "mailbox", "memory", "last end")
Row = tuple[Any, ...]


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
    """Supervisors with what they watch: the root's own with the coordinator, each broker's with its partitions."""
    actors, supervisors = found["actors"], found["supervisors"]
    nested = [supervisor for supervisor in supervisors if supervisor["parent"] is not None]
    placed = [(_place(actor["kind"], actor["broker"], actor["name"]), _actor_row(actor)) for actor in actors]
    placed += [(_place("supervisor", one["broker"], one["name"]), _supervisor_row(one)) for one in nested]
    rows = [row for _, row in sorted(placed)]
    root = next(supervisor for supervisor in supervisors if supervisor["parent"] is None)
    rows[0] = (*rows[0][:-1], _use(root))
    total = size_text(sum(actor["memory_bytes"] for actor in actors))
    return f"cluster {found['cluster']}, {len(actors)} processes, {total}\n{columns(HEADER, rows)}"


def _actor_row(actor: dict[str, Any]) -> Row:
    depth = {"supervisor": 0, "broker": 2, "partition": 2, "cleaner": 2}.get(actor["kind"], 1)
    return (
        _branch(depth) + actor["name"], actor["state"], actor["pid"], actor["incarnation"], actor["restarts"],
        _span(actor["uptime_s"]), actor["mailbox"], size_text(actor["memory_bytes"]), _end(actor))


def _supervisor_row(supervisor: dict[str, Any]) -> Row:
    """It lives in the root's process, so it has none of its own."""
    end = _end(supervisor)
    use = _use(supervisor) + ("" if end == "-" else f"; {end}")
    return (_branch(1) + supervisor["name"], "running", "", "", supervisor["restarts"], "", "", "", use)


def _branch(depth: int) -> str:
    return "" if depth == 0 else "   " * (depth - 1) + "└─ "


def _use(supervisor: dict[str, Any]) -> str:
    """Its strategy, and how much of its intensity is used up."""
    crashes = f"{supervisor['crashes']} of {supervisor['intensity']} crashes in {supervisor['period_s']:g} s"
    return f"{supervisor['strategy']}, {crashes}"


def _end(one: dict[str, Any]) -> str:
    """How it ended last, and how long ago."""
    if not one["last_exit"]:
        return "-"
    ago_s = (datetime.now(UTC) - datetime.fromisoformat(one["last_exit_at"])).total_seconds()
    return f"{one['last_exit']}, {_span(max(0.0, ago_s))} ago"


def _place(kind: str, broker: int | None, name: str) -> tuple[int, int, int, str, int]:
    """Where it stands in the tree; partition 10 comes after partition 9."""
    order = {"supervisor": 0, "fork server": 1, "coordinator": 2}.get(kind, 3) if broker is None else 3
    below = {"supervisor": 0, "broker": 1}.get(kind, 2)
    topic, _, number = name.rpartition("-") if kind == "partition" else (name, "", "0")
    return order, -1 if broker is None else broker, below, topic, int(number)


def _span(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, hours = seconds / 60, seconds / 3600
    return f"{minutes:.0f} min" if minutes < 60 else f"{hours:.1f} h"
