"""`zafka log verify` and `zafka log recover` on real files, as an operator runs them."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.unit.log_tools import NOW_MS, append, close, flush, make_batch, read_records, small_config
from tests.unit.test_coordinator import Cluster, topic
from zafka.runtime import log_files
from zafka.runtime.cli import main
from zafka.runtime.data_dir import DataDirectory
from zafka.storage.directory import open_partition_directory
from zafka.storage.disk import PosixDisk
from zafka.storage.errors import FailedFlush
from zafka.storage.fault import leave_marker, read_marker, read_recovered
from zafka.storage.recovery import recover
from zafka.storage.snapshot import replacing_name

CONFIG = small_config(segment_bytes=1000)
BATCHES = 12  # of two records each


def make_log(directory: Path, *, batches: int = BATCHES, above: int = 0) -> None:
    disk = PosixDisk()
    lock = open_partition_directory(directory, bytes(range(16)))
    log, _ = recover(disk, directory, CONFIG, NOW_MS)
    for i in range(batches):
        append(log, make_batch([b"%d" % i, b"x" * 100], timestamp_ms=NOW_MS + i))
    flush(disk, log, log.checkpoint())
    for _ in range(above):
        append(log, make_batch([b"above", b"y"]))
    log.close()
    lock.close()


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    DataDirectory(path, broker_ids=(1,)).close()
    make_log(path / "broker-1" / "orders-0")
    make_log(path / "broker-1" / "orders-10", batches=2)
    make_log(path / "broker-1" / "orders-2", batches=2, above=3)
    make_log(path / "coordinator" / "__cluster-0", batches=3)
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main(["log", *arguments])
    out, err = capsys.readouterr()
    return code, out, err


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str, code: int) -> Any:
    found, out, err = run(capsys, *arguments, "--format", "json")
    assert found == code, err
    return json.loads(out)


def wound(directory: Path, batch: int = 1) -> tuple[str, int]:
    """Flip a bit in the body of this batch of the first segment; returns segment and position."""
    path = min(directory.glob("*.log"))
    data = bytearray(path.read_bytes())
    position = batch * (12 + int.from_bytes(data[8:12], "big"))
    data[position + 70] ^= 1
    path.write_bytes(bytes(data))
    return path.name, position


def values(directory: Path) -> list[bytes | None]:
    disk = PosixDisk()
    log, _ = recover(disk, directory, CONFIG, NOW_MS)
    found = [record.value for record in read_records(disk, log)][::2]
    close(disk, log)
    return found


def test_all_partitions_are_told_in_order(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "verify", "--data-dir", str(data_dir))
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "__cluster-0: sound, offsets 0 to 5",
        "orders-0: sound, offsets 0 to 23",
        "orders-2: sound, offsets 0 to 9",
        "  known to be on disk: below offset 4; behind it, whole batches",
        "orders-10: sound, offsets 0 to 3",
    ]


def test_verify_says_exactly_what_is_damaged_and_changes_nothing(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = data_dir / "broker-1" / "orders-0"
    segment, position = wound(directory)
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    (found,) = as_json(capsys, "verify", "orders-0", "--data-dir", str(data_dir), code=1)
    assert found["state"] == "damaged" and found["lost"] == [{"first_offset": 2, "last_offset": 3}]
    (damage,) = found["damages"]
    assert (damage["segment"], damage["position"], damage["first_offset"]) == (segment, position, 2)
    code, out, _ = run(capsys, "verify", str(directory))
    assert code == 1 and f"offsets 2 to 3 cannot be read: {segment}, positions {position} to" in out
    assert before == {path.name: path.read_bytes() for path in directory.iterdir()}


def test_recover_says_what_it_would_do_and_does_it_when_told(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = data_dir / "broker-1" / "orders-0"
    wound(directory)
    leave_marker(PosixDisk(), directory, "flush failed: EIO")
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    code, out, err = run(capsys, "recover", "orders-0", "--data-dir", str(data_dir))
    assert code == 1
    assert "to be given up: offsets 2 to 3; kept: everything else in offsets 0 to 23" in out
    assert err == "zafka: nothing was changed; say --accept-loss to recover orders-0\n"
    assert before == {path.name: path.read_bytes() for path in directory.iterdir()}
    code, out, err = run(capsys, "recover", "orders-0", "--data-dir", str(data_dir), "--accept-loss")
    assert (code, err) == (0, "")
    assert "after:\norders-0: sound, offsets 0 to 23\n  given up before: offsets 2 to 3\norders-0 is recovered" in out
    assert read_marker(PosixDisk(), directory) == ""
    assert values(directory)[:2] == [b"0", b"2"] and len(values(directory)) == BATCHES - 1
    assert run(capsys, "verify", "--data-dir", str(data_dir))[0] == 0
    assert list(directory.glob("*.cut"))


def test_recover_in_json(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = data_dir / "broker-1" / "orders-2"
    path = max(directory.glob("*.log"))
    path.write_bytes(path.read_bytes() + b"torn")
    plan = as_json(capsys, "recover", "orders-2", "--data-dir", str(data_dir), code=1)
    assert plan["after"] is None and plan["before"]["gives_up"] == [] and plan["before"]["torn"]["bytes"] == 4
    done = as_json(capsys, "recover", "orders-2", "--data-dir", str(data_dir), "--accept-loss", code=0)
    recovered = read_recovered(PosixDisk(), directory)
    assert recovered is not None and recovered.finished
    assert (done["after"]["recovery_id"], done["after"]["torn"], done["after"]["end_offset"]) == (recovered.id, None, 10)


def test_the_clusters_own_log_takes_its_marker_along(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data_dir / "DISK_FAULT").write_text("a flush of __cluster failed\n")
    wound(data_dir / "coordinator" / "__cluster-0")
    code, out, _ = run(capsys, "recover", "__cluster-0", "--data-dir", str(data_dir), "--accept-loss")
    assert code == 0 and "topics that were created there are unknown" in out
    assert not (data_dir / "DISK_FAULT").exists()
    DataDirectory(data_dir, broker_ids=(1,)).close()


def test_a_fault_of_a_cluster_whose_log_never_came_to_the_disk_can_be_cleared(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(data_dir / "coordinator" / "__cluster-0")
    (data_dir / "DISK_FAULT").write_text("a flush of __cluster failed\n")
    code, out, err = run(capsys, "recover", "__cluster-0", "--data-dir", str(data_dir), "--accept-loss")
    assert code == 0, err
    assert "no records" in out
    assert not (data_dir / "DISK_FAULT").exists()


def test_it_refuses_while_zafka_runs(
    data_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_files, "LOCK_WAIT_S", 0.05)
    running = DataDirectory(data_dir, broker_ids=(1,))
    directory = data_dir / "broker-1" / "orders-0"
    serving = open_partition_directory(directory, bytes(range(16)))
    try:
        code, out, err = run(capsys, "recover", "orders-2", "--data-dir", str(data_dir), "--accept-loss")
        assert (code, out) == (1, "") and f"{data_dir} is in use" in err
        found = as_json(capsys, "verify", "--data-dir", str(data_dir), code=1)
        assert [one["state"] for one in found] == ["sound", "in use", "sound", "sound"]
        assert "orders-0: in use: a running zafka serves it" in run(capsys, "verify", str(directory))[1]
    finally:
        serving.close()
        running.close()


def test_a_copy_somewhere_else_can_be_looked_at_and_recovered(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy" / "orders-0"
    make_log(copy)
    wound(copy)
    assert run(capsys, "recover", str(copy), "--accept-loss")[0] == 0
    held = open_partition_directory(copy, bytes(range(16)))
    code, _, err = run(capsys, "recover", str(copy), "--accept-loss")
    held.close()
    assert code == 1 and "another process has" in err


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["verify", "order-0"], 1, "there is no 'order-0' in {data}; did you mean 'orders-0'?"),
        (["verify", "/nonexistent/orders-0"], 1, "/nonexistent/orders-0 is no directory"),
        (["recover", "orders-0", "--data-dir", "/nonexistent"], 1, "no data directory of zafka"),
        (["recover"], 2, "Missing argument"),
        (["recovr", "orders-0"], 2, "there is no `zafka log recovr`; did you mean 'recover'?"),
    ],
)
def test_wrong_names_are_told(
    data_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int,
    told: str,
) -> None:
    monkeypatch.setenv("ZAFKA_DATA_DIR", str(data_dir))
    found, out, err = run(capsys, *arguments)
    assert (found, out) == (code, "") and told.format(data=data_dir) in err


def test_one_name_on_two_brokers_has_to_be_said_as_a_path(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_log(data_dir / "broker-2" / "orders-0")
    code, _, err = run(capsys, "recover", "orders-0", "--data-dir", str(data_dir))
    assert code == 1 and "say which by its path" in err
    assert run(capsys, "verify", str(data_dir / "broker-2" / "orders-0"))[0] == 0


def test_what_cannot_be_read_is_told_beside_the_others(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data_dir / "broker-1" / "orders-10" / "partition.metadata").write_text("nonsense")
    (data_dir / "broker-1" / "orders-2" / "partition.metadata").unlink()
    (data_dir / "broker-1" / "orders-0" / "recovery-checkpoint").unlink()
    code, out, _ = run(capsys, "verify", "--data-dir", str(data_dir))
    assert code == 1
    assert "orders-10: unreadable: " in out and "is not what Kafka or zafka writes" in out
    assert "no partition.metadata says of which topic it is" in out
    assert "orders-0: damaged, offsets 0 to 23\n  checkpoint: missing" in out


def test_a_disk_that_still_refuses_a_flush_is_not_believed(
    data_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", refuse)
    code, out, err = run(capsys, "recover", "orders-0", "--data-dir", str(data_dir), "--accept-loss")
    assert (code, out) == (1, "") and "the disk refuses a flush of" in err
    (found,) = as_json(capsys, "verify", "orders-0", "--data-dir", str(data_dir), code=1)
    assert found["state"] == "unreadable"


def test_an_error_of_the_disk_in_the_middle_is_one_line(
    data_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(disk: PosixDisk, path: Path) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(PosixDisk, "fsync_dir", refuse)
    code, _, err = run(capsys, "recover", "orders-0", "--data-dir", str(data_dir), "--accept-loss")
    assert code == 1 and err.startswith("zafka: flush of") and "Traceback" not in err
    assert issubclass(FailedFlush, Exception)


def test_an_empty_log_has_no_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_log(tmp_path / "orders-0", batches=0)
    assert run(capsys, "verify", str(tmp_path / "orders-0"))[:2] == (0, "orders-0: sound, no records\n")


def test_of_the_cluster_it_says_which_snapshots_tell_what_was_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "data"
    DataDirectory(path, broker_ids=(1,)).close()
    cluster = Cluster(path, defaults={"internal.cluster.snapshot.records": "3"}).up()
    for number in range(12):
        cluster.create(topic(f"t{number}"))
        cluster.pass_time(1.0)
    cluster.stop()
    arguments = ("verify", "__cluster-0", "--data-dir", str(path))
    (found,) = as_json(capsys, *arguments, code=0)
    older, newer = sorted(snapshot["offset"] for snapshot in found["snapshots"])
    assert all(snapshot["whole"] for snapshot in found["snapshots"])
    assert found["first_offset"] == older < newer <= found["end_offset"]
    assert f"snapshots of what was before offset {newer} and {older}" in run(capsys, *arguments)[1]
    newest, older_file = (path / "coordinator" / "__cluster-0" / replacing_name(offset) for offset in (newer, older))
    newest.write_bytes(newest.read_bytes()[:-1])
    assert f"{newest.name} is not used: it has" in run(capsys, *arguments)[1]
    assert as_json(capsys, *arguments, code=0)[0]["state"] == "sound", "the older one tells it, too"
    older_file.unlink()
    (found,) = as_json(capsys, *arguments, code=1)
    assert found["state"] == "damaged" and "no snapshot tells what was before" in found["notes"][-1]
