"""`zafka config describe|alter`: of a topic, a broker, all brokers or a group, while they run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from zafka.runtime.cli import NounGroup
from zafka.runtime.cli.completion import group_names, topic_names
from zafka.runtime.cli.options import bootstrap_option, columns, emit, format_option
from zafka.runtime.cli.topic import parse_config

Command = TypeVar("Command", bound=Callable[..., Any])


@click.group(cls=NounGroup)
def config() -> None:
    """Describe and alter configuration of topics, brokers and groups."""


def owner_options(command: Command) -> Command:
    for option in (
        click.option("-G", "--group", metavar="NAME", shell_complete=group_names, help="Of this group (KIP-848)."),
        click.option("--all-brokers", is_flag=True, help="Of all brokers together."),
        click.option("-B", "--broker", type=click.IntRange(0), metavar="ID", help="Of this broker."),
        click.option("-t", "--topic", metavar="NAME", shell_complete=topic_names, help="Of this topic."),
    ):
        command = option(command)
    return command


def owner_of(topic: str | None, broker: int | None, all_brokers: bool, group: str | None) -> tuple[str, dict[str, Any]]:
    """In words, and for `Admin`."""
    given: list[tuple[str, dict[str, Any]]] = []
    if topic is not None:
        given.append((f"topic {topic}", {"topic": topic}))
    if broker is not None:
        given.append((f"broker {broker}", {"broker": broker}))
    if all_brokers:
        given.append(("every broker", {"broker": ""}))
    if group is not None:
        given.append((f"group {group}", {"group": group}))
    if len(given) != 1:
        raise click.UsageError("say whose configuration: --topic, --broker, --all-brokers or --group")
    return given[0]


@config.command()
@owner_options
@click.option("--all", "everything", is_flag=True, help="Also what nobody has set.")
@bootstrap_option
@format_option
def describe(
    topic: str | None, broker: int | None, all_brokers: bool, group: str | None, everything: bool, bootstrap: str, form: str
) -> None:
    """What is set, and who says so; with --all everything that holds."""
    _, owner = owner_of(topic, broker, all_brokers, group)
    from zafka.client.admin import Admin

    with Admin(bootstrap) as admin:
        entries = [entry for entry in admin.describe_configs(**owner) if everything or not entry.is_default]
    header = ("name", "value", "source", "read_only")
    rows = [(entry.name, entry.value, entry.source, entry.read_only) for entry in entries]
    emit(form, [dict(zip(header, row, strict=True)) for row in rows], lambda: columns(
        ("name", "value", "source"), [(name, "-" if value is None else value, source) for name, value, source, _ in rows]))


@config.command()
@owner_options
@click.option("--config", "configs", multiple=True, metavar="KEY=VALUE", help="By Kafka's names.")
@click.option("--delete-config", "deleted", multiple=True, metavar="KEY", help="Go back to the default.")
@click.option("--dry-run", is_flag=True, help="Only say whether it could be done.")
@bootstrap_option
def alter(
    topic: str | None, broker: int | None, all_brokers: bool, group: str | None, configs: tuple[str, ...],
    deleted: tuple[str, ...], dry_run: bool, bootstrap: str,
) -> None:
    """Set keys, or take away what was set; it holds at once, until the topology file says something new of them."""
    whose, owner = owner_of(topic, broker, all_brokers, group)
    wanted: dict[str, str | None] = {**parse_config(configs), **dict.fromkeys(deleted)}
    if not wanted:
        raise click.UsageError("say what to alter: --config KEY=VALUE or --delete-config KEY")
    from zafka.client.admin import Admin

    with Admin(bootstrap) as admin:
        admin.alter_config(config=wanted, **owner, validate_only=dry_run)
    told = ", ".join(f"{key}={value}" if value is not None else f"{key} by default" for key, value in wanted.items())
    click.echo(f"{whose} {'would have' if dry_run else 'has'} {told}", err=True)
