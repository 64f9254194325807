"""`zafka chaos kill|pause|resume|drop|delay|…`: faults, injected into the processes of a running cluster."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from zafka.runtime.cli import NounGroup
from zafka.runtime.cli.options import columns, emit, format_option

if TYPE_CHECKING:
    from zafka.runtime.faults.kinds import AnyFault

Command = TypeVar("Command", bound=Callable[..., Any])


class Seconds(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """A time with its unit; seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        from zafka.runtime.yaml_file import TopologyError, Value

        try:
            return Value(value, path="", line=0, file="").duration_s(0.001, 86400)
        except TopologyError as error:
            self.fail(str(error), param, ctx)


def where(command: Command) -> Command:
    """Which cluster: --topology, --data-dir."""
    file = click.option("-t", "--topology", type=click.Path(path_type=Path), metavar="FILE",
                        help="Of the cluster; by default the one that runs on ./zafka-data.")
    folder = click.option("--data-dir", envvar="ZAFKA_DATA_DIR", metavar="FOLDER",
                          help="Above the file's data_dir (or ZAFKA_DATA_DIR).")
    return file(folder(command))


def rule(command: Command) -> Command:
    """How often and how long: --probability, --skip, --times, --for, --seed."""
    for option in (
        click.option("--seed", type=click.IntRange(0), default=0, metavar="N", help="Of the choices by probability."),
        click.option("--for", "for_s", type=Seconds(), metavar="TIME", help="Such as 2s or 500ms; else until it is cleared."),
        click.option("--times", type=click.IntRange(1), metavar="N", help="Only so often."),
        click.option("--skip", type=click.IntRange(0), default=0, metavar="N", help="So many pass unharmed first."),
        click.option("--probability", type=click.FloatRange(0, 1), default=1.0, show_default=True),
    ):
        command = option(command)
    return command


@click.group(cls=NounGroup)
def chaos() -> None:
    """Inject faults into a running cluster that allows it (`zafka up --allow-faults`).

    Actors are named as in `zafka status`, or by patterns such as "partition orders-*".
    """


@chaos.command()
@click.argument("target")
@click.option("--signal", "name", default="KILL", show_default=True, metavar="NAME")
@where
def kill(target: str, name: str, topology: Path | None, data_dir: str | None) -> None:
    """Send SIGKILL, or another signal, to the processes of TARGET."""
    from zafka.runtime.faults.kinds import Kill

    full = "SIG" + name.upper().removeprefix("SIG")
    if full not in signal.Signals.__members__:
        raise click.UsageError(f"--signal: there is no signal {name}")
    perform(Kill(target=target, signal=int(signal.Signals[full])), topology, data_dir)


@chaos.command()
@click.argument("target")
@click.option("--for", "for_s", type=Seconds(), metavar="TIME", help="Such as 2s or 500ms; else until it is resumed.")
@where
def pause(target: str, for_s: float | None, topology: Path | None, data_dir: str | None) -> None:
    """Stop the processes of TARGET where they are, as SIGSTOP does."""
    from zafka.runtime.faults.kinds import Pause

    perform(Pause(target=target, for_s=for_s), topology, data_dir)


@chaos.command()
@click.argument("target")
@where
def resume(target: str, topology: Path | None, data_dir: str | None) -> None:
    """Let the processes of TARGET go on."""
    from zafka.runtime.faults.kinds import Resume

    perform(Resume(target=target), topology, data_dir)


def mail(what: str, told: str) -> None:
    """One of the verbs for mail that need no more than FROM and TO."""
    @chaos.command(what, help=told)
    @click.argument("sender", metavar="FROM")
    @click.argument("receiver", metavar="TO")
    @rule
    @where
    def command(sender: str, receiver: str, topology: Path | None, data_dir: str | None, **fields: Any) -> None:
        from zafka.runtime.faults.kinds import MailFault

        perform(MailFault(what=what, sender=sender, receiver=receiver, **fields), topology, data_dir)


mail("drop", "Lose mail that goes from the actors FROM to the actors TO.")
mail("duplicate", "Deliver mail from FROM to TO twice.")
mail("reorder", "Let mail from FROM to TO be overtaken by the next.")


@chaos.command()
@click.argument("sender", metavar="FROM")
@click.argument("receiver", metavar="TO")
@click.option("--by", "delay_s", type=Seconds(), required=True, metavar="TIME", help="Such as 50ms.")
@click.option("--jitter", "jitter_s", type=Seconds(), default=None, metavar="TIME", help="And at random up to this much more.")
@rule
@where
def delay(
    sender: str, receiver: str, delay_s: float, jitter_s: float | None, topology: Path | None, data_dir: str | None, **fields: Any
) -> None:
    """Let mail from the actors FROM to the actors TO be late; it keeps its order."""
    from zafka.runtime.faults.kinds import MailFault

    perform(MailFault(what="delay", sender=sender, receiver=receiver, delay_ms=delay_s * 1000,
                      jitter_ms=(jitter_s or 0) * 1000, **fields), topology, data_dir)


@chaos.command()
@click.argument("target")
@click.option("--error", required=True, metavar="NAME", help="ENOSPC, SHORT, EIO, EIO-READ, EIO-WRITE, FSYNC, FLIP or SLOW.")
@click.option("--path-glob", default="*", show_default=True, metavar="PATTERN", help="Files, such as '*.log'.")
@click.option("--by", "delay_s", type=Seconds(), metavar="TIME", help="How slow SLOW is.")
@rule
@where
def disk(
    target: str, error: str, path_glob: str, delay_s: float | None, topology: Path | None, data_dir: str | None, **fields: Any
) -> None:
    """Let the disk fail the processes of TARGET."""
    from zafka.runtime.faults.kinds import DiskError

    perform(DiskError(target=target, error=error.upper(), path_glob=path_glob, delay_ms=(delay_s or 0) * 1000, **fields),
            topology, data_dir)


@chaos.command()
@click.argument("target", required=False)
@click.option("--at", "point", metavar="POINT", help="One of those that `zafka chaos crash` lists.")
@click.option("--nth", type=click.IntRange(1), default=1, show_default=True, metavar="N", help="When it is passed for the Nth time.")
@click.option("--times", type=click.IntRange(1), default=1, show_default=True, metavar="N")
@where
def crash(target: str | None, point: str | None, nth: int, times: int, topology: Path | None, data_dir: str | None) -> None:
    """Kill a process of TARGET when it passes a point of its work; without TARGET, list the points."""
    from zafka.runtime.faults.kinds import Crash
    from zafka.runtime.faults.points import POINTS

    if target is None:
        click.echo(columns(("point", "where"), [(name, each.told) for name, each in POINTS.items()]))
        return
    if point is None:
        raise click.UsageError("say where, with --at POINT")
    perform(Crash(target=target, point=point, skip=nth - 1, times=times), topology, data_dir)


@chaos.command()
@click.argument("api")
@click.option("--topic", metavar="PATTERN", help="Only for these topics.")
@click.option("--error", metavar="NAME", help="Answer with this error, and do nothing.")
@click.option("--by", "delay_s", type=Seconds(), metavar="TIME", help="Do it, and answer late.")
@click.option("--close", is_flag=True, help="Close the connection, and do nothing.")
@click.option("--broker", "target", default="broker *", show_default=True, metavar="PATTERN")
@rule
@where
def error(
    api: str, topic: str | None, error: str | None, delay_s: float | None, close: bool, target: str, topology: Path | None,
    data_dir: str | None, **fields: Any,
) -> None:
    """Answer requests for API (PRODUCE, FETCH, ...) with an error, late, or not at all."""
    from zafka.runtime.faults.kinds import ApiFault

    perform(ApiFault(api=api.upper(), target=target, topic=topic, error=error, delay_ms=(delay_s or 0) * 1000,
                     close=close, **fields), topology, data_dir)


@chaos.command()
@click.argument("ids", nargs=-1, type=int, metavar="[ID]...")
@where
def clear(ids: tuple[int, ...], topology: Path | None, data_dir: str | None) -> None:
    """Lift the rules with these numbers; without any, all of them, and resume what is paused."""
    from zafka.runtime.faults.kinds import Clear

    perform(Clear(ids=ids or None), topology, data_dir)


@chaos.command("list")
@where
@format_option
def list_(topology: Path | None, data_dir: str | None, form: str) -> None:
    """What is in force, and how often it has hit."""
    from zafka.runtime.faults.asking import read_faults

    found = read_faults(data_dir_of(topology, data_dir))
    emit(form, found, lambda: as_text(found))


def as_text(found: dict[str, Any]) -> str:
    rows = []
    for each in found["rules"]:
        told = {key: value for key, value in each.items() if key not in ("id", "fault", "hits", "left_s")}
        rows.append((each["id"], each["fault"], each["hits"], left(each["left_s"]), words(told)))
    rows += [("-", "paused", "-", left(each["left_s"]), each["name"]) for each in found["paused"]]
    return columns(("id", "fault", "hits", "left", "what"), rows)


def left(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.1f} s"


def words(told: dict[str, Any]) -> str:
    return "  ".join(f"{key}={value}" for key, value in told.items())


@chaos.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--seed", type=click.IntRange(0), metavar="N", help="Above the file's; the same one makes the same choices.")
@where
def plan(file: Path, seed: int | None, topology: Path | None, data_dir: str | None) -> int:
    """Follow the fault plan FILE to its end; exit code 1 if part of it could not be done."""
    from zafka.runtime.control import read_status
    from zafka.runtime.faults.asking import inject_or_refuse, read_faults
    from zafka.runtime.faults.follow import follow
    from zafka.runtime.faults.plan import load_plan

    read, folder = load_plan(file), data_dir_of(topology, data_dir)
    read_faults(folder)  # are they allowed?
    names = [actor["name"] for actor in read_status(folder)["actors"]]
    summary = follow(read, seed, names, inject_or_refuse(folder), tell_line, wait=time.sleep)
    tell_line({"summary": summary})
    return 1 if summary["refused"] else 0


def tell_line(line: dict[str, Any]) -> None:
    """What was done: for people on a terminal, else as JSON."""
    if not sys.stdout.isatty():
        click.echo(json.dumps(line))
    elif "summary" in line:
        click.echo(words(line["summary"]))
    else:
        rest = {key: value for key, value in line.items() if key not in ("at_s", "do")}
        click.echo(f"{line['at_s']:8.3f} s  {line['do']:<9}  {words(rest)}")


def perform(fault: AnyFault, topology: Path | None, data_dir: str | None) -> None:
    """Inject it and say what was done."""
    from zafka.runtime.faults.asking import inject
    from zafka.runtime.faults.kinds import FaultError, check_fault

    try:
        check_fault(fault)
    except FaultError as wrong:
        raise click.UsageError(str(wrong)) from None
    answer = inject(data_dir_of(topology, data_dir), fault)
    if "id" in answer:
        click.echo(f"rule {answer['id']} is in force", err=True)
    for name, pid in answer.get("targets", {}).items():
        click.echo(f"{name}: process {pid}", err=True)
    if "cleared" in answer:
        count = len(answer["cleared"])
        click.echo(f"{count} rule{'' if count == 1 else 's'} lifted", err=True)


def data_dir_of(topology: Path | None, data_dir: str | None) -> Path:
    from zafka.runtime.topology import Changes, load_topology

    return load_topology(topology, Changes(data_dir=data_dir)).data_dir
