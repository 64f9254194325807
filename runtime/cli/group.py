"""`zafka group list|describe|seek|delete`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from zafka.runtime.cli import NounGroup
from zafka.runtime.cli.completion import group_names, topic_names
from zafka.runtime.cli.options import bootstrap_option, columns, emit, format_option

if TYPE_CHECKING:
    from zafka.client.admin import Admin, GroupInfo
    from zafka.client.consumer import Consumer
    from zafka.client.records import TopicPartition


@click.group(cls=NounGroup)
def group() -> None:
    """List, describe, move and delete groups of consumers."""


@group.command("list")
@bootstrap_option
@format_option
def list_(bootstrap: str, form: str) -> None:
    """All groups and their states."""
    from zafka.client.admin import Admin

    with Admin(bootstrap) as admin:
        found = [{"group": each.group_id, "state": each.state, "kind": each.kind} for each in admin.list_groups()]
    rows = [tuple(each.values()) for each in found]
    emit(form, found, lambda: columns(("group", "state", "kind"), rows) if rows else "")


@group.command()
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=group_names)
@bootstrap_option
@format_option
def describe(names: tuple[str, ...], bootstrap: str, form: str) -> None:
    """Members, committed offsets and how far each partition is behind; of all groups without a NAME."""
    from zafka.client.admin import Admin
    from zafka.client.consumer import Consumer

    with Admin(bootstrap) as admin, Consumer(bootstrap_servers=bootstrap) as consumer:
        infos = admin.describe_groups(names) if names else describe_all(admin)
        described = [describe_one(admin, consumer, info) for info in infos]
    emit(form, described, lambda: "\n\n".join(map(as_text, described)))


def describe_all(admin: Admin) -> Iterator[GroupInfo]:
    """Those that can be described. One that is gone since it was listed is no reason to tell nothing of the others."""
    from zafka.client.errors import BrokerRefused

    for each in admin.list_groups():
        if each.is_known:
            try:
                yield from admin.describe_groups(each.group_id)
            except BrokerRefused as refused:
                click.echo(f"zafka: {refused}", err=True)


def describe_one(admin: Admin, consumer: Consumer, info: GroupInfo) -> dict[str, Any]:
    committed = admin.list_group_offsets(info.group_id)
    owners = {where: member for member in info.members for where in member.assignment}
    wanted = sorted({*committed, *owners})
    topics = consumer.topics()
    end = consumer.end_offsets([where for where in wanted if where.topic in topics])
    partitions = []
    for where in wanted:
        offset, last, owner = committed.get(where), end.get(where), owners.get(where)
        partitions.append({
            "topic": where.topic, "partition": where.partition, "committed": offset, "end_offset": last,
            "lag": None if offset is None or last is None else max(0, last - offset),
            "member": owner.member_id if owner else None})
    members = [
        {"member": each.member_id, "instance": each.instance_id, "client": each.client_id, "host": each.host,
         "partitions": len(each.assignment)}
        for each in info.members]
    return {
        "group": info.group_id, "state": info.state, "protocol": info.protocol, "members": members,
        "partitions": partitions}


def as_text(described: dict[str, Any]) -> str:
    parts = [f"{described['group']}  {described['state']}  {described['protocol']}".rstrip()]
    for name, header in (
        ("members", ("member", "instance", "client", "host", "partitions")),
        ("partitions", ("topic", "partition", "committed", "end_offset", "lag", "member")),
    ):
        rows = [tuple("-" if one[key] is None else one[key] for key in header) for one in described[name]]
        if rows:
            parts.append(columns(tuple(key.replace("_", " ") for key in header), rows))
    return "\n".join(parts)


@group.command()
@click.argument("name", shell_complete=group_names)
@click.argument("topics", nargs=-1, metavar="[TOPIC]...", shell_complete=topic_names)
@click.option("--to", "to", required=True, metavar="WHERE",
              help="earliest, latest, an offset, or a time such as 2026-01-31T08:00 (local, or with its zone).")
@click.option("--dry-run", is_flag=True, help="Only say what would be committed.")
@bootstrap_option
@format_option
def seek(name: str, topics: tuple[str, ...], to: str, dry_run: bool, bootstrap: str, form: str) -> None:
    """Have the group NAME, which must have no members now, go on elsewhere: in these topics, or in all it has offsets of."""
    from zafka.client.admin import Admin
    from zafka.client.consumer import Consumer
    from zafka.client.records import TopicPartition

    with Admin(bootstrap) as admin, Consumer(bootstrap_servers=bootstrap) as consumer:
        before = admin.list_group_offsets(name)
        chosen = topics or sorted({where.topic for where in before})
        if not chosen:
            raise click.UsageError(f"group {name} has committed nothing; name the topics")
        where = [TopicPartition(one, number) for one in chosen for number in sorted(consumer.partitions_for_topic(one))]
        after = find_offsets(consumer, where, to)
        if not dry_run:
            admin.alter_group_offsets(name, after)
    rows = [(*one, before.get(one), after[one]) for one in where]
    header = ("topic", "partition", "before", "after")
    emit(form, [dict(zip(header, row, strict=True)) for row in rows],
         lambda: columns(header, [tuple("-" if cell is None else cell for cell in row) for row in rows]))
    click.echo(f"group {name} {'would go' if dry_run else 'goes'} on there", err=True)


def find_offsets(consumer: Consumer, where: list[TopicPartition], to: str) -> dict[TopicPartition, int]:
    """An offset beyond what is there is the nearest that is; a time later than all records is the end."""
    first, end = consumer.beginning_offsets(where), consumer.end_offsets(where)
    if to == "earliest":
        return first
    if to == "latest":
        return end
    if to.isdecimal():
        return {one: min(max(int(to), first[one]), end[one]) for one in where}
    try:
        at_ms = max(0, int(datetime.fromisoformat(to).timestamp() * 1000))
    except ValueError:
        raise click.UsageError(
            f"--to must be earliest, latest, an offset or a time such as 2026-01-31T08:00, not {to!r}") from None
    found = consumer.offsets_for_times(dict.fromkeys(where, at_ms))
    return {one: at.offset if (at := found[one]) is not None else end[one] for one in where}


@group.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=group_names)
@click.option("--topic", "topics", multiple=True, metavar="TOPIC", shell_complete=topic_names,
              help="Only what is committed of this topic, which no member may read now; may be said more than once.")
@bootstrap_option
def delete(names: tuple[str, ...], topics: tuple[str, ...], bootstrap: str) -> None:
    """Delete groups that have no members, with their committed offsets."""
    from zafka.client.admin import Admin

    with Admin(bootstrap) as admin:
        for name in names:
            if not topics:
                admin.delete_groups(name)
                click.echo(f"group {name} deleted", err=True)
                continue
            gone = [where for where in admin.list_group_offsets(name) if where.topic in topics]
            admin.delete_group_offsets(name, gone)
            click.echo(f"group {name}: {len(gone)} committed offsets deleted", err=True)
