"""The framing of the ZeroMQ door: what is read is what was written, and odd frames are refused."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, strategies as st

from zafka.transport.door import (
    GOODBYE,
    Arrival,
    BadDoorMessage,
    DoorMessage,
    judge_arrival,
    read_message,
    write_message,
)


def test_what_is_read_is_what_was_written() -> None:
    assert read_message(write_message(2**62, 7, b"request")) == DoorMessage(2**62, 7, b"request")
    assert read_message(write_message(1, GOODBYE)) == DoorMessage(1, GOODBYE, b"")


@pytest.mark.parametrize(
    "frames",
    [
        [],
        [b"only one"],
        [b"\xc1", b""],
        [b"", b""],
        [msgspec.msgpack.encode([1, 2]), b""],
        [msgspec.msgpack.encode([1, "a", 3]), b""],
        [msgspec.msgpack.encode([9, 1, 3]), b""],
        [*write_message(1, 2, b"x"), b"a third"],
    ],
)
def test_odd_frames_are_refused(frames: list[bytes]) -> None:
    with pytest.raises(BadDoorMessage):
        read_message(frames)


@given(st.lists(st.binary(max_size=40), max_size=4))
def test_any_frames_are_read_or_refused(frames: list[bytes]) -> None:
    try:
        message = read_message(frames)
    except BadDoorMessage:
        return
    assert read_message(write_message(*message)) == message


def test_a_request_runs_only_in_the_incarnation_that_it_names() -> None:
    assert judge_arrival(DoorMessage(1, 0, b""), 7) is Arrival.HELLO
    assert judge_arrival(DoorMessage(1, 7, b"r"), 7) is Arrival.REQUEST
    assert judge_arrival(DoorMessage(1, 6, b"r"), 7) is Arrival.STALE
    assert judge_arrival(DoorMessage(1, GOODBYE, b""), 7) is Arrival.GOODBYE
