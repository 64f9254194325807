"""`zafka log verify|recover`: a partition's files, looked at and mended while nobody has them open."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zafka.runtime.cli import NounGroup
from zafka.runtime.cli.options import emit, format_option

if TYPE_CHECKING:
    from zafka.storage.fault import Recovered
    from zafka.storage.verify import Verdict

data_dir_option = click.option(
    "--data-dir", envvar="ZAFKA_DATA_DIR", metavar="FOLDER", default="zafka-data", show_default=True,
    help="Where the cluster's data lies (or ZAFKA_DATA_DIR).")


@click.group(cls=NounGroup)
def log() -> None:
    """Check and recover the files of partitions. The coordinator's own log is the partition __cluster-0."""


@log.command("verify")
@click.argument("target", required=False, metavar="[TOPIC-PARTITION|PATH]")
@data_dir_option
@format_option
def verify_(target: str | None, data_dir: str, form: str) -> int:
    """Read every byte of a partition, or of all, and say which offsets are fine and which are not.

    Changes nothing. Partitions that a running zafka serves are left out; those that it has offline are read.
    Exit code 0 if all is fine, 1 if anything is damaged, offline or was left out.
    """
    from zafka.runtime.log_files import find_log, find_logs

    folder = Path(data_dir).expanduser().absolute()
    paths = [find_log(folder, target)] if target else find_logs(folder)
    found = [describe(path) for path in paths]
    emit(form, found, lambda: "\n".join(map(as_text, found)))
    return 0 if all(one["state"] == "sound" for one in found) else 1


@log.command()
@click.argument("target", metavar="TOPIC-PARTITION|PATH")
@click.option("--accept-loss", is_flag=True, help="Do it. Without this it is only said what would be done.")
@data_dir_option
@format_option
def recover(target: str, accept_loss: bool, data_dir: str, form: str) -> int:
    """Bring a partition back whose disk failed a flush or whose log is damaged, and give up what is lost.

    Whole batches are kept on both sides of damage; the offsets that are lost are a hole from then on, and are not given
    out again. Damaged bytes are kept in files that end in .cut. The next `zafka up` serves the partition again.
    """
    from zafka.runtime.log_files import find_log, look_at, plan_recovery, recover_log, taken

    path = find_log(Path(data_dir).expanduser().absolute(), target)
    with taken(path):
        verdict = look_at(path, going_on=accept_loss)
        planned = plan_recovery(verdict)
        before = {**verdict_data(path, verdict), "gives_up": ranges_data(planned.lost)}
        if not accept_loss:
            emit(form, {"before": before, "after": None}, lambda: f"{as_text(before)}\n{plan_text(planned)}")
            raise click.ClickException(f"nothing was changed; say --accept-loss to recover {path.name}")
        if form == "text":
            click.echo(f"{as_text(before)}\n{plan_text(planned)}")
        done = recover_log(verdict, planned)
        after = verdict_data(path, look_at(path))
    data = {"before": before, "after": {**after, "gave_up": ranges_data(done.lost), "recovery_id": done.id}}
    emit(form, data, lambda: f"after:\n{as_text(after)}\n{done_text(path, done)}")
    return 0


# -- as data -------------------------------------------------------------------------------------


def describe(path: Path) -> dict[str, Any]:
    """What `verify` says of one partition."""
    from zafka.runtime.errors import LogRefused
    from zafka.runtime.log_files import is_open, look_at
    from zafka.storage.errors import StorageError

    named = {"partition": path.name, "directory": str(path)}
    if is_open(path):
        return {**named, "state": "in use", "reason": "a running zafka serves it; stop that to have it read"}
    try:
        return verdict_data(path, look_at(path))
    except (StorageError, LogRefused, OSError) as error:
        return {**named, "state": "unreadable", "reason": str(error)}


def verdict_data(path: Path, verdict: Verdict) -> dict[str, Any]:
    from zafka.storage.directory import format_topic_id

    notes = [note for segment in verdict.segments for note in segment.notes]
    notes += [f"{base:020d}.log is not part of this log" for base in verdict.strangers]
    notes += [f"{one.name} is not used: {one.reason}" for one in verdict.snapshots if one.reason]
    if is_without_beginning(path, verdict):
        notes.append(f"the log begins at offset {verdict.start_offset}, and no snapshot tells what was before: put back a "
                     "snapshot from a backup")
    if verdict.topic_id is None and verdict.segments:
        notes.append("no partition.metadata says of which topic it is: it will not be opened")
    torn = verdict.torn
    return {
        "partition": path.name,
        "directory": str(path),
        "state": state_of(path, verdict),
        "topic_id": format_topic_id(verdict.topic_id) if verdict.topic_id else None,
        "fault": verdict.marker or None,
        "checkpoint": verdict.checkpoint,
        "first_offset": verdict.start_offset,
        "end_offset": verdict.end_offset,
        "flushed_offset": verdict.flushed_offset if verdict.flushed_offset >= 0 else None,
        "lost": ranges_data(verdict.lost),
        "damages": [
            {
                "segment": f"{segment.base_offset:020d}.log", "position": damage.position,
                "end_position": damage.end_position, "first_offset": damage.first_offset,
                "last_offset": damage.end_offset - 1, "reason": damage.reason,
            }
            for segment in verdict.segments for damage in segment.damages
        ],
        "torn": torn and {
            "segment": f"{torn.base_offset:020d}.log", "position": torn.position, "bytes": torn.size_bytes,
            "first_offset": torn.first_offset, "reason": torn.reason},
        "snapshots": [{"offset": int(one.name[:20]), "whole": not one.reason} for one in verdict.snapshots],
        "given_up": ranges_data([each for segment in verdict.segments for each in segment.given_up]),
        "notes": notes,
    }


def is_without_beginning(path: Path, verdict: Verdict) -> bool:
    """Of `__cluster` what was before its start stands in its snapshots; elsewhere it was to go."""
    is_cluster = path.name == "__cluster-0" and verdict.start_offset > 0
    return is_cluster and all(one.reason for one in verdict.snapshots)


def state_of(path: Path, verdict: Verdict) -> str:
    if verdict.is_damaged or is_without_beginning(path, verdict) or (verdict.topic_id is None and verdict.segments):
        return "damaged"
    if verdict.marker:
        return "offline"
    return "sound" if verdict.is_sound else "damaged"


def ranges_data(ranges: list[tuple[int, int]]) -> list[dict[str, int]]:
    return [{"first_offset": first, "last_offset": end - 1} for first, end in ranges]


# -- for people ----------------------------------------------------------------------------------


def as_text(one: dict[str, Any]) -> str:
    if "reason" in one:
        return f"{one['partition']}: {one['state']}: {one['reason']}"
    first, end = one["first_offset"], one["end_offset"]
    lines = [f"{one['partition']}: {one['state']}, " + (offsets(first, end - 1) if end > first else "no records")]
    if one["checkpoint"] not in ("ok", "new"):
        lines.append(f"checkpoint: {one['checkpoint']}")
    elif one["flushed_offset"] is not None and first < one["flushed_offset"] < end:
        lines.append(f"known to be on disk: below offset {one['flushed_offset']}; behind it, whole batches")
    whole = [snapshot["offset"] for snapshot in one["snapshots"] if snapshot["whole"]]
    if whole:
        lines.append(f"snapshots of what was before offset {' and '.join(map(str, whole))}")
    if one["fault"]:
        lines.append(f"offline: {one['fault']}")
    for damage in one["damages"]:
        where = f"{damage['segment']}, positions {damage['position']} to {damage['end_position']}: {damage['reason']}"
        lost = damage["last_offset"] >= damage["first_offset"]
        what = f"{offsets(damage['first_offset'], damage['last_offset'])} cannot be read" if lost else "surplus bytes"
        lines.append(f"{what}: {where}")
    if one["torn"]:
        torn = one["torn"]
        lines.append(
            f"torn from offset {torn['first_offset']} on: {torn['segment']}, position {torn['position']}: "
            f"{torn['reason']}; every start cuts these {torn['bytes']} bytes, and whether any of it had been "
            "acknowledged is not known")
    lines += [f"given up before: {offsets(each['first_offset'], each['last_offset'])}" for each in one["given_up"]]
    lines += one["notes"]
    return "\n  ".join(lines)


def plan_text(planned: Recovered) -> str:
    lost = "nothing" if not planned.lost else ", ".join(offsets(first, end - 1) for first, end in planned.lost)
    kept = "everything else" if planned.lost else "everything"
    torn = f", and {planned.torn_bytes} bytes of a torn tail" if planned.torn_bytes else ""
    return f"to be given up: {lost}{torn}; kept: {kept} in {offsets(planned.start_offset, planned.end_offset - 1)}"


def done_text(path: Path, done: Recovered) -> str:
    text = f"{path.name} is recovered; the next `zafka up` serves it (recovery {done.id})"
    if path.name == "__cluster-0" and done.lost:
        text += (
            "\nWhat the cluster decided in the lost offsets is forgotten: topics that were created there are unknown, "
            "and their directories are left alone; deletions and settings are undone. See `zafka topic list`")
    return text


def offsets(first: int, last: int) -> str:
    return f"offset {first}" if first == last else f"offsets {first} to {last}"
