"""`zafka consume -G`: what is printed is what is committed, whenever it is told to end."""

from __future__ import annotations

import io
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from zafka.client.records import TopicPartition
from zafka.runtime.cli import consume
from zafka.runtime.cli.consume import copy_share, until_interrupted

WHERE = TopicPartition("t", 0)


class Reader:
    """A member's consumer with one record for each poll, and its position."""

    def __init__(self) -> None:
        self.at = 0

    def poll(self, timeout: float, limit: int) -> list[Any]:
        self.at += 1
        return [SimpleNamespace(topic="t", partition=0, offset=self.at - 1)]

    def seek(self, where: tuple[str, int], offset: int) -> None:
        assert where == WHERE
        self.at = offset

    def lag(self) -> dict[TopicPartition, int]:
        return {WHERE: 1}


class Taker(io.BytesIO):
    """Standard output. on_flush: called after what was written has gone out, with its number."""

    def __init__(self, on_flush: Callable[[int], None]) -> None:
        super().__init__()
        self.on_flush = on_flush
        self.flushes = 0

    def flush(self) -> None:
        self.flushes += 1
        self.on_flush(self.flushes)


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """A signal that nobody catches would end the tests."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    assert not [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]


def copied(monkeypatch: pytest.MonkeyPatch, on_flush: Callable[[int], None]) -> tuple[Reader, Taker]:
    reader, taker = Reader(), Taker(on_flush)
    monkeypatch.setattr(consume.sys, "stdout", SimpleNamespace(buffer=taker))
    with until_interrupted() as interrupts:
        copy_share(reader, lambda record: b"%d\n" % record.offset, None, interrupts, exit_at_end=False)  # type: ignore[arg-type]
    return reader, taker


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_went_out_before_the_signal_stays_read(monkeypatch: pytest.MonkeyPatch, number: signal.Signals) -> None:
    def stop(flush: int) -> None:
        if flush == 2:
            os.kill(os.getpid(), number)

    reader, taker = copied(monkeypatch, stop)
    assert (reader.at, taker.getvalue()) == (2, b"0\n1\n")


def test_a_write_that_nobody_takes_is_ended_and_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consume, "WRITE_S", 0.05)

    def block(flush: int) -> None:
        if flush == 2:
            os.kill(os.getpid(), signal.SIGTERM)
            while True:
                signal.pause()

    reader, _ = copied(monkeypatch, block)
    assert reader.at == 1


def test_a_second_signal_ends_such_a_write_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consume, "WRITE_S", 1e6)

    def block(flush: int) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    reader, _ = copied(monkeypatch, block)
    assert reader.at == 0


def test_before_and_after_the_share_a_signal_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    reached = []
    with until_interrupted() as interrupts:
        with interrupts.hold():
            os.kill(os.getpid(), signal.SIGTERM)
            reached.append("held")
        os.kill(os.getpid(), signal.SIGTERM)
        reached.append("not held")
    assert (reached, interrupts.is_asked) == (["held"], True)


def test_who_is_not_told_of_ctrl_c_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell that is not interactive has its background jobs ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with until_interrupted():
        os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_all_goes_out_where_writes_take_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """As pipes do where a signal comes and Python keeps no buffer."""

    class Short(io.BytesIO):
        def write(self, data: Any) -> int:
            return super().write(bytes(data)[:3])

    monkeypatch.setattr(consume.sys, "stdout", SimpleNamespace(buffer=(short := Short())))
    consume.put(b"0123456789")
    assert short.getvalue() == b"0123456789"
