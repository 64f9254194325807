"""Streams: messages come whole and in order, however the kernel cuts them, and nobody waits."""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from zafka.transport.stream import READ_BYTES, Acceptor, Stream

NO_LIMIT = 1 << 62
MESSAGES = st.lists(st.tuples(st.binary(min_size=1, max_size=40), st.binary(max_size=60)), max_size=12)


def framed(messages: list[tuple[bytes, bytes]]) -> bytes:
    return b"".join(struct.pack(">II", len(head), len(records)) + head + records for head, records in messages)


def read_all(stream: Stream, count: int) -> list[tuple[bytes, bytes]]:
    found: list[tuple[bytes, bytes]] = []
    while len(found) < count and not stream.closed:
        found += [(bytes(head), bytes(records)) for head, records in stream.read(1000, NO_LIMIT)]
    return found


@given(messages=MESSAGES, cuts=st.lists(st.integers(1, 50), max_size=20), limit=st.integers(1, 3))
def test_any_cut_gives_the_same_messages(messages: list[tuple[bytes, bytes]], cuts: list[int], limit: int) -> None:
    theirs, ours = socket.socketpair()
    stream, data, found = Stream(ours), framed(messages), []
    for size in [*cuts, len(data)]:
        theirs.sendall(data[:size])
        data = data[size:]
        while True:
            come = stream.read(limit, NO_LIMIT)
            assert len(come) <= limit
            found += [(bytes(head), bytes(records)) for head, records in come]
            if not stream.has_frame:
                break
    while len(found) < len(messages):
        found += [(bytes(head), bytes(records)) for head, records in stream.read(1000, NO_LIMIT)]
    assert found == messages
    assert stream.read(1, NO_LIMIT) == [] and not stream.closed
    theirs.close()
    assert stream.read(1, NO_LIMIT) == [] and stream.closed


@pytest.mark.parametrize("size", [0, 1, READ_BYTES - 1, READ_BYTES, 3 * READ_BYTES + 7, 8_000_000])
def test_there_and_back_in_any_size(size: int, tmp_path: Path) -> None:
    acceptor = Acceptor(f"unix://{tmp_path}/inbox")
    dialled = Stream.dial(f"unix://{tmp_path}/inbox")
    (accepted,) = acceptor.accept()
    records = bytes(range(256)) * (size // 256) + bytes(size % 256)
    for sender, reader in ((dialled, accepted), (accepted, dialled)):
        assert sender.send(b"head", records if size else None)
        found: list[tuple[bytes, bytes]] = []
        while not found:
            sender.flush()
            found = [(bytes(head), bytes(behind)) for head, behind in reader.read(10, NO_LIMIT)]
        assert found == [(b"head", records)]
        assert not sender.blocked
    for each in (dialled, accepted, acceptor):
        each.close()
    assert not (tmp_path / "inbox").exists()


def test_a_full_socket_takes_no_second_message() -> None:
    theirs, ours = socket.socketpair()
    stream = Stream(ours)
    sent = 0
    while stream.send(b"%d" % sent, bytes(100_000)):
        sent += 1
    assert stream.blocked and not stream.flush()
    reader = Stream(theirs)
    found: list[tuple[bytes, bytes]] = []
    while len(found) < sent:
        found += [(bytes(head), bytes(records)) for head, records in reader.read(1000, NO_LIMIT)]
        stream.flush()
    assert [head for head, _ in found] == [b"%d" % number for number in range(sent)]
    stream.close()
    reader.close()


def test_bytes_are_limited_in_whole_messages() -> None:
    theirs, ours = socket.socketpair()
    theirs.sendall(framed([(b"a", bytes(500)), (b"b", bytes(500)), (b"c", b"")]))
    stream = Stream(ours)
    assert [bytes(head) for head, _ in stream.read(10, 1)] == [b"a"]
    assert stream.has_frame
    assert [bytes(head) for head, _ in stream.read(10, NO_LIMIT)] == [b"b", b"c"]
    theirs.close()
    stream.close()


def test_what_the_dead_have_said_is_still_heard() -> None:
    theirs, ours = socket.socketpair()
    theirs.sendall(framed([(b"last words", b"")]) + b"\0\0")  # it died in the middle of the next
    theirs.close()
    stream = Stream(ours)
    assert read_all(stream, 2) == [(b"last words", b"")]
    assert stream.closed and not stream.blocked


def test_nobody_to_dial(tmp_path: Path) -> None:
    assert Stream.dial(f"unix://{tmp_path}/nobody").closed
    acceptor = Acceptor(f"unix://{tmp_path}/inbox")
    assert acceptor.accept() == []
    with pytest.raises(OSError, match="in use"):
        Acceptor(f"unix://{tmp_path}/inbox")
    acceptor.close()
    assert Stream.dial(f"unix://{tmp_path}/inbox").closed


def test_who_hung_up_is_not_written_to_and_still_heard() -> None:
    """The descriptor stays until all is read: another file that took its number would be watched in its place."""
    theirs, ours = socket.socketpair()
    stream = Stream(ours)
    theirs.sendall(framed([(b"last words", b"")]))
    theirs.close()
    assert stream.send(b"hello?", None) and stream.hung_up
    assert stream.send(b"hello?", None) and not stream.blocked
    assert not stream.closed and os.fstat(stream.fd)
    assert read_all(stream, 2) == [(b"last words", b"")]
    assert stream.closed
    with pytest.raises(OSError):
        os.fstat(stream.fd)
