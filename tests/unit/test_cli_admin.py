"""What `zafka topic`, `config` and completion ask of a cluster, and what they make of its answers, without one."""

from __future__ import annotations

from unittest.mock import MagicMock, call

import click
import pytest

from zafka.client.admin import ConfigEntry, PartitionInfo, TopicInfo
from zafka.client.errors import NoBroker, UnknownTopic
from zafka.runtime.cli import main
from zafka.runtime.cli.completion import group_names, topic_names


@pytest.fixture
def admin(monkeypatch: pytest.MonkeyPatch) -> MagicMock:
    """Stands for every Admin that a command makes."""
    made = MagicMock()
    made.__enter__.return_value = made
    made.list_topics.return_value = made.describe_configs.return_value = []
    monkeypatch.setattr("zafka.client.admin.Admin", MagicMock(return_value=made))
    return made


@pytest.mark.parametrize(
    ("line", "asked"),
    [
        ("topic create t", call.create_topic("t", -1, -1, {})),
        ("topic create t -p 3 -r 2 --config a=b=c", call.create_topic("t", 3, 2, {"a": "b=c"})),
        ("topic list", call.list_topics(internal=False)),
        ("topic list --internal", call.list_topics(internal=True)),
        ("topic alter t --config a=1 --delete-config b", call.alter_config("t", {"a": "1", "b": None}, validate_only=False)),
        ("topic alter t --config a= --dry-run", call.alter_config("t", {"a": ""}, validate_only=True)),
        ("topic alter t -p 4", call.create_partitions("t", 4, validate_only=False)),
        ("topic alter t -p 4 --dry-run", call.create_partitions("t", 4, validate_only=True)),
        ("config alter -t t --config a=1", call.alter_config(config={"a": "1"}, topic="t", validate_only=False)),
        ("config alter -B 0 --config a=1 --dry-run", call.alter_config(config={"a": "1"}, broker=0, validate_only=True)),
        ("config alter --all-brokers --delete-config a", call.alter_config(config={"a": None}, broker="", validate_only=False)),
        ("config describe -G g", call.describe_configs(group="g")),
        ("config describe -B 0", call.describe_configs(broker=0)),
    ],
)
def test_what_is_asked_is_what_the_line_says(line: str, asked: object, admin: MagicMock) -> None:
    assert main(line.split()) == 0
    assert admin.method_calls == [asked]


def test_topics_are_deleted_if_all_of_them_are_there(admin: MagicMock) -> None:
    assert main(["topic", "delete", "a", "b"]) == 0
    admin.delete_topics.assert_called_once_with(("a", "b"))
    admin.delete_topics.reset_mock()
    admin.describe_topics.side_effect = UnknownTopic("c")
    assert main(["topic", "delete", "a", "c"]) == 1
    admin.delete_topics.assert_not_called()


@pytest.mark.parametrize(("options", "names"), [([], ["set"]), (["--all"], ["set", "default"])])
def test_what_nobody_has_set_is_described_if_wanted(
    options: list[str], names: list[str], admin: MagicMock, capsys: pytest.CaptureFixture[str]
) -> None:
    admin.describe_configs.return_value = [
        ConfigEntry(name, None, name, "int", name == "default", False, False, None) for name in ("set", "default")]
    assert main(["config", "describe", "-t", "t", *options]) == 0
    assert capsys.readouterr().out.split()[3:] == [word for name in names for word in (name, "-", name)]


def test_a_topic_is_described_with_partitions_that_nobody_leads(
    admin: MagicMock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of which nobody can be asked for offsets; broker 0 is one like any other, and so is offset 0."""
    consumer = MagicMock()
    consumer.__enter__.return_value = consumer
    consumer.beginning_offsets.return_value = consumer.end_offsets.return_value = {("t", 0): 0}
    monkeypatch.setattr("zafka.client.consumer.Consumer", MagicMock(return_value=consumer))
    admin.describe_topics.return_value = [TopicInfo("t", bytes(16), False, (
        PartitionInfo(0, 0, 3, (0,), (0,), ()), PartitionInfo(1, -1, 3, (0,), (), (0,))))]
    assert main(["topic", "describe", "t"]) == 0
    consumer.end_offsets.assert_called_once_with([("t", 0)])
    assert [line.split() for line in capsys.readouterr().out.splitlines()[2:]] == [
        ["0", "0", "3", "0", "0", "0", "0"], ["1", "none", "3", "0", "-", "-"]]


def test_names_are_completed_and_nobody_who_answers_means_none(admin: MagicMock) -> None:
    admin.list_topics.return_value = ["orders", "payments"]
    admin.list_groups.return_value = [MagicMock(group_id="others"), MagicMock(group_id="billing")]
    context = click.Context(click.Command("consume"))
    parameter = click.Argument(["topic"])
    assert topic_names(context, parameter, "o") == ["orders"]
    assert group_names(context, parameter, "o") == ["others"]
    for error in (NoBroker("nobody is there"), OSError()):
        admin.list_topics.side_effect = error
        assert topic_names(context, parameter, "") == []
