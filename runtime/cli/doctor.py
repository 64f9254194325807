"""`zafka doctor`: what could keep zafka from running here, and what a client is told."""

from __future__ import annotations

from pathlib import Path

import click
from click.core import ParameterSource

from zafka.runtime.cli.completion import group_names
from zafka.runtime.cli.options import bootstrap_option, emit, format_option

MARKS = {"ok": "ok     ", "warning": "WARNING", "problem": "PROBLEM"}


@click.command()
@bootstrap_option
@click.option("--data-dir", type=click.Path(path_type=Path), default=Path("zafka-data"), envvar="ZAFKA_DATA_DIR",
              metavar="FOLDER", help="Where data would lie.")
@click.option("-G", "--group", metavar="NAME", shell_complete=group_names, help="Tell of this group, and where its members are sent.")
@format_option
@click.pass_context
def doctor(context: click.Context, bootstrap: str, data_dir: Path, group: str | None, form: str) -> int:
    """Check this machine, what clients at an address are told, and groups; exit code 1 if something will not work."""
    from zafka.runtime.doctor import check_address, check_machine

    asked = context.get_parameter_source("bootstrap") != ParameterSource.DEFAULT
    findings = [*check_machine(data_dir.absolute()), *check_address(bootstrap, asked=asked or group is not None, group=group)]
    emit(form, [finding._asdict() for finding in findings],
         lambda: "\n".join(f"{MARKS[level]}  {subject}: {text}" for level, subject, text in findings))
    return int(any(finding.level == "problem" for finding in findings))
