"""The command line without a broker: wrong usage, formats, what `up` imports."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import pytest

from zafka.client.records import Record
from zafka.runtime.cli import COMMANDS, main
from zafka.runtime.cli.completion import join_at_colons
from zafka.runtime.cli.consume import json_line
from zafka.runtime.cli.options import columns, emit, size_text
from zafka.runtime.cli.produce import limited, parse_headers, read_messages, unescape
from zafka.runtime.cli.record_format import compile_format
from zafka.runtime.cli.status import as_tree

RECORD = Record(
    topic="orders", partition=2, offset=41, timestamp=1700000000000, timestamp_type=0, key=b"key",
    value="größe".encode(), headers=[("a", b"1"), ("b", None)])
BARE = Record(topic="t", partition=0, offset=0, timestamp=0, timestamp_type=1, key=None, value=None, headers=[])
BINARY = Record(topic="t", partition=0, offset=0, timestamp=0, timestamp_type=1, key=None, value=b"\xff", headers=[])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["tpoic"], "there is no command 'tpoic'; did you mean 'topic'?"),
        (["qqqqqq"], "there is no command 'qqqqqq'; there are: up, status, topic"),
        (["topic", "lsit"], "there is no `zafka topic lsit`; did you mean 'list'?"),
        (["topic", "alter", "t"], "--config KEY=VALUE, --delete-config KEY or --partitions N"),
        (["topic", "alter", "t", "--config", "a"], "--config takes key=value"),
        (["topic", "create"], "Missing argument 'NAME'"),
        (["topic", "create", "t", "--config", "retention.ms"], "--config takes key=value, such as retention.ms=60000"),
        (["topic", "create", "t", "--config", "=60000"], "--config takes key=value, such as retention.ms=60000"),
        (["config", "describe", "-t", "t", "-B", "1"], "say whose configuration"),
        (["topic", "create", "t", "--partitions", "0"], "'--partitions'"),
        (["up", "--kafka-port", "70000"], "'--kafka-port'"),
        (["up", "--kafka-prot", "1"], "--kafka-port"),
        (["up", "--broker", "2"], "--broker is not supported yet"),
        (["bench", "prodcue"], "there is no `zafka bench prodcue`; did you mean 'produce'?"),
        (["bench", "latency", "--rate", "0"], "'--rate'"),
        (["bench", "end-to-end", "--size", "7"], "'--size'"),
        (["bench", "produce", "--config", "fsync"], "--config takes key=value"),
        (["group", "seek", "g"], "Missing option '--to'"),
        (["group", "moove"], "there is no `zafka group moove`"),
        (["chaos", "kill"], "Missing argument 'TARGET'"),
        (["chaos", "kil", "x"], "there is no `zafka chaos kil`; did you mean 'kill'?"),
        (["consume"], "Missing argument 'TOPIC'"),
        (["consume", "t", "-G", "g", "-o", "end"], "`zafka group seek` moves it"),
        (["consume", "t", "-J", "-f", "%s"], "use one of them"),
        (["consume", "t", "-f", "%q"], "%q means nothing"),
        (["produce", "t", "-k", "a", "-K", ":"], "use one of the two"),
        (["produce", "t", "-H", "novalue"], "--header takes name=value, not 'novalue'"),
        (["produce", "t", "-D", "\\xzz"], "two hexadecimal digits"),
        (["produce", "t", "/nonexistent/file"], "No such file"),
    ],
)
def test_wrong_usage_is_told_with_code_2(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert told in err
    assert err.startswith("zafka: ")
    assert "Try 'zafka" in err


def test_an_error_of_ours_is_one_line_with_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["up", str(tmp_path / "absent.yaml")]) == 1
    assert capsys.readouterr().err == f"zafka: {tmp_path}/absent.yaml: no such file\n"


def test_an_environment_variable_is_named_when_it_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ZAFKA_KAFKA_PORT", "http")
    assert main(["up"]) == 2
    assert "ZAFKA_KAFKA_PORT" in capsys.readouterr().err


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"\n  {name} " in out for name in ("up", "status", "topic", "produce", "consume", "doctor", "demo"))
    assert main(["--version"]) == 0


def test_no_arguments_show_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "Usage: zafka" in capsys.readouterr().err


def test_up_imports_no_niceties() -> None:
    """What costs time at the start of a broker: rich 29 ms, the client 30 ms."""
    script = (
        "import sys\n"
        "from zafka.runtime.cli import main\n"
        "main(['up', '/nonexistent.yaml'])\n"
        "print([name for name in ('rich', 'zafka.client.core', 'structlog', 'asyncio') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n"


# -- completion ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "joined"),
    [
        (["consume", "-b", "tcp", ":", "//localhost", ":", "9290"], ["consume", "-b", "tcp://localhost:9290"]),
        (["-b", "localhost", ":"], ["-b", "localhost:"]),
        (["a", "b"], ["a", "b"]),
        ([], []),
    ],
)
def test_bash_splits_at_colons_and_we_join(words: list[str], joined: list[str]) -> None:
    assert join_at_colons(words) == joined


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (["up", ""], ["file,"]),
        (["group", "s"], ["plain,seek"]),
        (["bench", "produce", "--acks", ""], ["plain,all", "plain,1", "plain,0"]),
        (["consume", "-b", "localhost", ":", "9"], [""]),
        (["tpoic", ""], [f"plain,{name}" for name in COMMANDS]),
    ],
)
def test_what_is_wrong_on_a_line_is_not_told_to_a_shell_that_completes(
    words: list[str], completed: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("_ZAFKA_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "\n".join(["zafka", *words]))
    monkeypatch.setenv("COMP_CWORD", str(len(words)))
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 0
    out, err = capsys.readouterr()
    assert (out.splitlines(), err) == (completed, "")


# -- produce -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "data"),
    [("\\n", b"\n"), ("\\t|", b"\t|"), ("\\x1e", b"\x1e"), ("\\\\n", b"\\n"), ("ä", "ä".encode()), ("\\q", b"\\q"),
     ("end\\", b"end\\"), ("", b"")],
)
def test_escapes(text: str, data: bytes) -> None:
    assert unescape(text) == data


def test_headers_take_a_name_and_any_value() -> None:
    assert parse_headers(["a=1", "b=", "c=x=y"]) == [("a", b"1"), ("b", b""), ("c", b"x=y")]
    with pytest.raises(click.UsageError):
        parse_headers(["=1"])


@pytest.mark.parametrize(
    ("data", "delimiter", "messages"),
    [(b"a\nb\n", b"\n", [b"a", b"b"]), (b"a\nb", b"\n", [b"a", b"b"]), (b"", b"\n", []), (b"\n\n", b"\n", [b"", b""]),
     (b"a--b--c", b"--", [b"a", b"b", b"c"])],
)
def test_messages_are_split_at_the_delimiter(tmp_path: Path, data: bytes, delimiter: bytes, messages: list[bytes]) -> None:
    (tmp_path / "f").write_bytes(data)
    with (tmp_path / "f").open("rb") as file:
        assert [one for chunk in read_messages(file, delimiter) for one in chunk] == messages


def test_a_delimiter_across_two_reads_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zafka.runtime.cli.produce.READ_BYTES", 3)
    (tmp_path / "f").write_bytes(b"ab--cd--ef")
    with (tmp_path / "f").open("rb") as file:
        assert [one for chunk in read_messages(file, b"--") for one in chunk] == [b"ab", b"cd", b"ef"]


def test_a_limit_stops_reading() -> None:
    def chunks():  # type: ignore[no-untyped-def]
        yield [b"1", b"2"]
        yield [b"3", b"4"]
        pytest.fail("read on")

    assert [one for chunk in limited(chunks(), 3) for one in chunk] == [b"1", b"2", b"3"]
    assert list(limited([[b"1"]], None)) == [[b"1"]]


# -- consume -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "printed"),
    [
        ("%t %p %o %k %s\\n", "orders 2 41 key größe\n"),
        ("%T|%h|%S|%K", "1700000000000|a=1,b=NULL|7|3"),
        ("100%% %%s", "100% %s"),
        ("%R", "\0\0\0\7größe"),
        ("plain", "plain"),
    ],
)
def test_format_strings(form: str, printed: str) -> None:
    assert compile_format(form)(RECORD) == printed.encode()


def test_no_key_and_no_value_are_told_apart_if_wanted() -> None:
    assert compile_format("%k:%s:%K:%S")(BARE) == b"::-1:-1"
    assert compile_format("%k:%s", null=b"NULL")(BARE) == b"NULL:NULL"


def test_json_lines_are_kcats() -> None:
    assert json.loads(json_line(RECORD)) == {
        "topic": "orders", "partition": 2, "offset": 41, "tstype": "create", "ts": 1700000000000,
        "headers": ["a", "1", "b", None], "key": "key", "payload": "größe"}
    binary = json.loads(json_line(BINARY))
    assert binary["payload"] is None
    assert (binary["payload_base64"], binary["key"], binary["tstype"]) == ("/w==", None, "logappend")


# -- status ----------------------------------------------------------------------------------------


def test_the_tree_is_in_order_and_partitions_stand_below_their_broker() -> None:
    common = {"state": "running", "pid": 7, "incarnation": 1, "restarts": 0, "uptime_s": 61.0, "mailbox": 0,
              "memory_bytes": 4_400_000, "last_exit": "", "last_exit_at": ""}
    actors = [
        {"name": name, "kind": name.split()[0] if name != "fork server" else name, "broker": broker, **common}
        for name, broker in [("partition t-10", 1), ("partition t-9", 1), ("broker 2", 2), ("broker 1", 1),
                             ("coordinator", None), ("fork server", None), ("supervisor", None)]
    ]
    ended = {"last_exit": "killed by SIGKILL", "last_exit_at": (datetime.now(UTC) - timedelta(minutes=3)).isoformat()}
    actors[0] |= ended
    supervisors = [
        {"name": name, "parent": parent, "broker": broker, "strategy": strategy, "intensity": 20, "period_s": 60.0,
         "crashes": crashes, "restarts": crashes, "last_exit": "", "last_exit_at": ""}
        for name, parent, broker, strategy, crashes in [
            ("root", None, None, "one_for_one", 0), ("supervisor of broker 1", "root", 1, "rest_for_one", 3),
            ("supervisor of broker 2", "root", 2, "rest_for_one", 0)]
    ]
    supervisors[1] |= {**ended, "last_exit": "gave up"}
    first, header, *lines = as_tree({"cluster": "demo", "actors": actors, "supervisors": supervisors}).splitlines()
    assert first == "cluster demo, 7 processes, 30.8 MB"
    assert header.split() == ["actor", "state", "pid", "incarnation", "restarts", "up", "mailbox", "memory", "last", "end"]
    assert [line.split("  running")[0].rstrip() for line in lines] == [
        "supervisor", "└─ fork server", "└─ coordinator", "└─ supervisor of broker 1", "   └─ broker 1",
        "   └─ partition t-9", "   └─ partition t-10", "└─ supervisor of broker 2", "   └─ broker 2"]
    assert "1 min" in lines[0]
    assert "4.4 MB" in lines[0]
    assert lines[0].endswith("one_for_one, 0 of 20 crashes in 60 s")
    assert lines[3].endswith("rest_for_one, 3 of 20 crashes in 60 s; gave up, 3 min ago")
    assert lines[5].endswith("4.4 MB  -")
    assert lines[6].endswith("killed by SIGKILL, 3 min ago")


# -- output --------------------------------------------------------------------------------------


def test_columns_are_aligned_numbers_to_the_right() -> None:
    assert columns(("name", "n"), [("a", 5), ("long", 100)]) == "name    n\na       5\nlong  100"
    assert columns(("lag", "member"), [(100, "-"), ("-", "-")]) == "lag  member\n100  -\n  -  -"
    assert columns(("name",), []) == ""


def test_sizes_for_people() -> None:
    assert [size_text(size) for size in (0, 999, 1500, 2_000_000, 5 * 10**12)] == [
        "0 B", "999 B", "1.5 kB", "2.0 MB", "5000.0 GB"]


def test_every_format_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    data = [{"name": "a", "n": 1}]
    for form in ("json", "yaml", "text"):
        emit(form, data, lambda: "for people")
    out = capsys.readouterr().out
    assert json.loads(out.split("- name")[0]) == data
    assert "- name: a\n  n: 1\nfor people\n" in out
