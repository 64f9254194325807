"""`zafka topic create|list|describe|alter|delete`."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from zafka.runtime.cli import NounGroup
from zafka.runtime.cli.completion import topic_names
from zafka.runtime.cli.options import bootstrap_option, columns, emit, format_option

if TYPE_CHECKING:
    from zafka.client.admin import Admin, TopicInfo
    from zafka.client.consumer import Consumer


@click.group(cls=NounGroup)
def topic() -> None:
    """Create, list, describe, alter and delete topics."""


@topic.command()
@click.argument("name")
@click.option("-p", "--partitions", type=click.IntRange(1), metavar="N", help="By default the brokers' num.partitions.")
@click.option("-r", "--replication-factor", type=click.IntRange(1), metavar="N",
              help="By default the brokers' default.replication.factor.")
@click.option("--config", "configs", multiple=True, metavar="KEY=VALUE", help="Topic configuration, by Kafka's names.")
@bootstrap_option
def create(
    name: str, partitions: int | None, replication_factor: int | None, configs: tuple[str, ...], bootstrap: str
) -> None:
    """Create the topic NAME."""
    config = parse_config(configs)
    from zafka.client.admin import BY_BROKER_DEFAULT, Admin

    with Admin(bootstrap) as admin:
        made = admin.create_topic(
            name, partitions or BY_BROKER_DEFAULT, replication_factor or BY_BROKER_DEFAULT, config)
    count = len(made.partitions)
    click.echo(f"topic {name} created with {count} partition{'' if count == 1 else 's'}", err=True)


def parse_config(texts: Iterable[str]) -> dict[str, str]:
    config: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise click.UsageError(f"--config takes key=value, such as retention.ms=60000, not {text!r}")
        config[key] = value
    return config


@topic.command("list")
@click.option("--internal", is_flag=True, help="Internal topics too.")
@bootstrap_option
@format_option
def list_(internal: bool, bootstrap: str, form: str) -> None:
    """Names of all topics."""
    from zafka.client.admin import Admin

    with Admin(bootstrap) as admin:
        names = admin.list_topics(internal=internal)
    emit(form, names, lambda: "\n".join(names))


@topic.command()
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=topic_names)
@bootstrap_option
@format_option
def describe(names: tuple[str, ...], bootstrap: str, form: str) -> None:
    """Partitions, leaders, offsets and configuration of topics; of all topics without a NAME."""
    from zafka.client.admin import Admin
    from zafka.client.consumer import Consumer

    with Admin(bootstrap) as admin, Consumer(bootstrap_servers=bootstrap) as consumer:
        found = admin.describe_topics(names or admin.list_topics())
        described = [describe_one(admin, consumer, info) for info in found]
    emit(form, described, lambda: "\n\n".join(map(as_text, described)))


def describe_one(admin: Admin, consumer: Consumer, info: TopicInfo) -> dict[str, Any]:
    partitions = [(info.name, one.partition) for one in info.partitions if one.leader >= 0]
    first, end = consumer.beginning_offsets(partitions), consumer.end_offsets(partitions)
    return {
        "name": info.name,
        "topic_id": base64.urlsafe_b64encode(info.topic_id).rstrip(b"=").decode(),
        "partitions": [
            {
                "partition": one.partition, "leader": one.leader, "leader_epoch": one.leader_epoch,
                "replicas": list(one.replicas), "in_sync": list(one.in_sync),
                "first_offset": first.get((info.name, one.partition)),  # type: ignore[call-overload]
                "end_offset": end.get((info.name, one.partition)),  # type: ignore[call-overload]
            }
            for one in info.partitions
        ],
        "config": {
            entry.name: entry.value for entry in admin.describe_configs(topic=info.name) if not entry.is_default},
    }


def as_text(described: dict[str, Any]) -> str:
    header = ("partition", "leader", "epoch", "replicas", "in sync", "first", "end")
    rows = [
        (one["partition"], one["leader"] if one["leader"] >= 0 else "none", one["leader_epoch"],
         ",".join(map(str, one["replicas"])), ",".join(map(str, one["in_sync"])),
         "-" if one["first_offset"] is None else one["first_offset"],
         "-" if one["end_offset"] is None else one["end_offset"])
        for one in described["partitions"]
    ]
    config = "".join(f"\n{key}={value}" for key, value in described["config"].items())
    return f"{described['name']}  {described['topic_id']}{config}\n{columns(header, rows)}"


@topic.command()
@click.argument("name", shell_complete=topic_names)
@click.option("-p", "--partitions", type=click.IntRange(1), metavar="N",
              help="How many the topic is to have in all; they only ever become more.")
@click.option("--config", "configs", multiple=True, metavar="KEY=VALUE", help="Topic configuration, by Kafka's names.")
@click.option("--delete-config", "deleted", multiple=True, metavar="KEY", help="Go back to the cluster's default.")
@click.option("--dry-run", is_flag=True, help="Only say whether it could be done.")
@bootstrap_option
def alter(
    name: str, partitions: int | None, configs: tuple[str, ...], deleted: tuple[str, ...], dry_run: bool, bootstrap: str
) -> None:
    """Change the configuration of the topic NAME, or give it more partitions.

    What is altered holds until the topology file says something new of the topic.
    """
    config: dict[str, str | None] = {**parse_config(configs), **dict.fromkeys(deleted)}
    if partitions is None and not config:
        raise click.UsageError("say what to alter: --config KEY=VALUE, --delete-config KEY or --partitions N")
    from zafka.client.admin import Admin

    with Admin(bootstrap) as admin:
        if config:
            admin.alter_config(name, config, validate_only=dry_run)
            told = ", ".join(f"{key}={value}" if value is not None else f"{key} by default" for key, value in config.items())
            click.echo(f"topic {name} {'would have' if dry_run else 'has'} {told}", err=True)
        if partitions is not None:
            count = len(admin.create_partitions(name, partitions, validate_only=dry_run).partitions)
            told = f"would have {partitions} partitions, has {count}" if dry_run else f"has {count} partitions"
            click.echo(f"topic {name} {told}", err=True)


@topic.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=topic_names)
@bootstrap_option
def delete(names: tuple[str, ...], bootstrap: str) -> None:
    """Delete topics with all their records."""
    from zafka.client.admin import Admin

    with Admin(bootstrap) as admin:
        admin.describe_topics(names)  # all of them or none: one that does not exist is most likely mistyped
        admin.delete_topics(names)
    for name in names:
        click.echo(f"topic {name} deleted", err=True)
