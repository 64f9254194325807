"""What is said about ways past the broker, and on them: layouts, the cutting of streams, which sockets may be dialled."""

from __future__ import annotations

import os
import random
import socket
import struct
import tempfile
from pathlib import Path

import pytest

from zafka.runtime.run_dir import RunDirectory
from zafka.transport.direct import (
    BadDirectFrame,
    Cutter,
    DirectAnswer,
    Told,
    Where,
    direct_path,
    encode,
    is_ours,
    read_answer,
    read_request,
    read_told,
    read_where,
    request_head,
    write_answer,
)
from zafka.transport.door import WHERE, Arrival, BadDoorMessage, DoorMessage, judge_arrival

SEED = int(os.environ.get("SEED", "0")) or random.randrange(1, 2**31)


def framed(frame: bytes) -> bytes:
    return struct.pack(">I", len(frame)) + frame


def test_a_question_for_the_way_and_its_answer() -> None:
    assert judge_arrival(DoorMessage(1, WHERE, encode(Where("t", 3))), 7) is Arrival.WHERE
    assert read_where(encode(Where("t", 3))) == Where("t", 3)
    told = Told("t" * 249, 2**31 - 1, 2**62, 2**31 - 1, "/" + "p" * 106)
    assert read_told(encode(told)) == told
    assert read_told(encode(["t", 3])) == Told("t", 3, -1, -1, "")


@pytest.mark.parametrize("body", [b"", b"\xc0", b"\x92\x01\x01", encode(["t"]), b"\x92\xa2\xff\xfe\x01", encode(["t" * 600, 1]), b"\x91" * 511])
def test_what_is_no_question_is_refused(body: bytes) -> None:
    with pytest.raises(BadDoorMessage):
        read_where(body)
    with pytest.raises(BadDoorMessage):
        read_told(body)


def test_requests_and_answers_as_they_stand_on_the_wire() -> None:
    frame = request_head(5, 2**40, 3) + b"batch"
    assert frame == bytes.fromhex("00000005 0000010000000000 00000003") + b"batch"
    assert read_request(memoryview(frame)) == (5, 2**40, 3, b"batch")
    answer = DirectAnswer(5, -1, 2**40, -1, 7, "no: é")
    assert read_answer(memoryview(write_answer(answer))[4:]) == answer
    long = write_answer(answer._replace(error_message="é" * 5000))
    assert struct.unpack_from(">I", long) == (len(long) - 4,) and len(long) < 2100


def test_what_is_too_short_is_refused() -> None:
    with pytest.raises(BadDirectFrame):
        read_request(memoryview(request_head(1, 2, 3)))
    with pytest.raises(BadDirectFrame):
        read_answer(memoryview(write_answer(DirectAnswer(1, 0, 0, 0, 0)))[4:-1])


def test_a_stream_is_cut_the_same_however_it_comes() -> None:
    print(f"SEED={SEED}")
    rng = random.Random(SEED)
    for _ in range(200):
        frames = [rng.randbytes(rng.choice((1, 5, 300, 3000))) for _ in range(rng.randrange(1, 12))]
        stream = b"".join(map(framed, frames))
        cutter, got, position, limit = Cutter(4000), [], 0, rng.choice((1, 2, 100))
        while position < len(stream) or cutter.has_frame:
            step = 0 if cutter.has_frame else rng.choice((1, 3, 1000, 20000))
            cut = cutter.cut(stream[position : position + step], limit)
            assert len(cut) <= limit
            got += cut
            position += step
        assert got == frames and cutter.kept_bytes == 0


@pytest.mark.parametrize("length", [0, 4001, 2**31, 2**32 - 1])
def test_a_length_that_no_frame_has_is_refused_before_anything_is_kept_for_it(length: int) -> None:
    cutter = Cutter(4000)
    with pytest.raises(BadDirectFrame):
        cutter.cut(framed(b"good") + struct.pack(">I", length), 100)
    with pytest.raises(BadDirectFrame):
        Cutter(4000).cut(struct.pack(">I", length), 0)


def test_a_run_directory_of_ours_and_no_other_place_is_dialled(tmp_path: Path) -> None:
    run_dir = RunDirectory()
    try:
        path = direct_path(run_dir.endpoint("root"), 12)
        assert path == f"{run_dir.path}/d12" and is_ours(path)
        run_dir.path.chmod(0o750)
        assert not is_ours(path)  # who else may write there may stand in for a partition
    finally:
        run_dir.close()
    assert not is_ours(path)
    elsewhere = tmp_path / "zafka-run-1-0123456789abcdef"
    elsewhere.mkdir(mode=0o700)
    linked = tmp_path / "zafka-run-1-01234567"
    linked.symlink_to(elsewhere)
    for other in (f"{elsewhere}/d1", f"{linked}/d1", f"{tmp_path}/d1", "d1", "", "/zafka-run-1-01234567/\0"):
        assert not is_ours(other)


def test_a_directory_of_somebody_else_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "zafka-run-1-01234567"
        directory.mkdir(mode=0o700)
        assert is_ours(f"{directory}/d1")
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        assert not is_ours(f"{directory}/d1")
        monkeypatch.undo()
        monkeypatch.delattr(socket, "AF_UNIX")  # as on Windows
        assert not is_ours(f"{directory}/d1")
