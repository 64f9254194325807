"""A partition's own door, with real sockets: frames in, answers out, and what a client cannot make it hold."""

from __future__ import annotations

import contextlib
import socket
import struct
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from tests.readiness import readable
from zafka.actors import direct_door
from zafka.actors.actor import Mail
from zafka.actors.direct import DIRECT, AnswerDirect, DirectProduce
from zafka.actors.direct_door import DirectDoor
from zafka.actors.messages import ProduceAnswer
from zafka.transport.direct import DirectAnswer, read_answer, request_head
from zafka.transport.kafka.errors import ErrorCode

INCARNATION = 9
EPOCH = 3
WAIT_S = 10.0

pytestmark = pytest.mark.timeout(60)


class Host:
    """The shell of a partition around its door."""

    def __init__(self, folder: str) -> None:
        self.bad: list[str] = []
        self.path = f"{folder}/d{INCARNATION}"
        self.door = DirectDoor(self.path, INCARNATION, self.bad.append)

    def wait(self, count: int = 1) -> list[Mail]:
        """Read until as many requests have come."""
        mails: list[Mail] = []
        while len(mails) < count:
            assert self.door.has_left or readable(self.door, WAIT_S), "nothing comes"
            mails += self.door.read()
        assert len(mails) == count
        return mails

    def accept(self) -> None:
        """Take in who has dialled; nothing of it is a request."""
        assert readable(self.door, WAIT_S)
        assert self.door.read() == []

    def answer(self, *mails: Mail, error: int = 0, message: str = "") -> None:
        self.door.perform(AnswerDirect([
            ProduceAnswer(asked(mail).item.request_id, error, -1 if error else 70, -1, 4, message) for mail in mails]))


class Guest:
    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(WAIT_S)
        self.socket.connect(path)

    def say(self, *batches: bytes, incarnation: int = INCARNATION, first: int = 1) -> None:
        self.socket.sendall(b"".join(framed(first + index, batch, incarnation) for index, batch in enumerate(batches)))

    def hear(self) -> DirectAnswer:
        (length,) = struct.unpack(">I", self._receive(4))
        return read_answer(memoryview(self._receive(length)))

    def hears_the_end(self) -> bool:
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def _receive(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self.socket.recv(size - len(data))
            assert piece, "the door hung up"
            data += piece
        return data


def framed(correlation_id: int, batch: bytes, incarnation: int = INCARNATION) -> bytes:
    frame = request_head(correlation_id, incarnation, EPOCH) + batch
    return struct.pack(">I", len(frame)) + frame


def asked(mail: Mail) -> DirectProduce:
    assert mail.sender == DIRECT
    return cast(DirectProduce, mail.body)


@pytest.fixture
def host() -> Iterator[Host]:
    with tempfile.TemporaryDirectory() as folder:  # short: the path of a Unix socket ends at 107 bytes
        host = Host(folder)
        yield host
        host.door.close()
        assert not Path(host.path).exists()


@pytest.fixture
def guest(host: Host) -> Iterator[Guest]:
    guest = Guest(host.path)
    with guest.socket:
        yield guest


def test_batches_go_in_and_answers_come_out(host: Host, guest: Guest) -> None:
    guest.say(b"one", b"another")
    first, second = host.wait(2)
    assert [bytes(mail.records) for mail in (first, second)] == [b"one", b"another"]
    assert asked(first).leader_epoch == EPOCH and asked(first).item.size == 3 and asked(first).item.acks == -1
    assert asked(second).item.request_id < asked(first).item.request_id < 0
    host.answer(second, first)
    assert guest.hear() == (2, 0, 70, -1, 4, "") and guest.hear() == (1, 0, 70, -1, 4, "")


def test_a_large_batch_comes_in_pieces(host: Host, guest: Guest) -> None:
    batch = bytes(range(256)) * 8192
    sending = threading.Thread(target=guest.say, args=(batch, b"behind"))
    sending.start()
    mails: list[Mail] = []
    while len(mails) < 2:
        assert readable(host.door, WAIT_S)
        mails += host.door.read()
    sending.join()
    assert [bytes(mail.records) for mail in mails] == [batch, b"behind"] and host.door._kept_bytes == 0


def test_clients_do_not_hear_each_others_answers(host: Host, guest: Guest) -> None:
    other = Guest(host.path)
    with other.socket:
        guest.say(b"one", first=1)
        (first,) = host.wait()
        other.say(b"two", first=1)
        (second,) = host.wait()
        host.answer(second, message="second")
        assert other.hear().error_message == "second"
        host.answer(first, message="first")
        assert guest.hear().error_message == "first"


def test_an_answer_to_who_is_gone_reaches_nobody_who_came_after(host: Host, guest: Guest) -> None:
    guest.say(b"one")
    (mail,) = host.wait()
    guest.socket.close()
    host.accept()
    with Guest(host.path).socket as successor:  # with the descriptor of the other
        host.accept()
        host.answer(mail)
        successor.setblocking(False)
        with pytest.raises(BlockingIOError):
            successor.recv(1)


@pytest.mark.parametrize("error", [ErrorCode.NOT_LEADER_OR_FOLLOWER, ErrorCode.FENCED_LEADER_EPOCH, ErrorCode.KAFKA_STORAGE_ERROR])
def test_after_an_error_that_may_pass_nothing_behind_it_is_taken(host: Host, guest: Guest, error: ErrorCode) -> None:
    guest.say(b"one", b"two")
    mails = host.wait(2)
    guest.say(b"three", first=3)  # before it heard of the error
    host.answer(*mails, error=error, message="not here")
    assert guest.hear() == (1, error, -1, -1, 4, "not here") and guest.hears_the_end()
    assert host.door.read() == []


def test_after_an_error_for_good_the_connection_goes_on(host: Host, guest: Guest) -> None:
    guest.say(b"one", b"two")
    first, second = host.wait(2)
    host.answer(first, error=ErrorCode.MESSAGE_TOO_LARGE)
    host.answer(second)
    assert [guest.hear().error_code, guest.hear().error_code] == [ErrorCode.MESSAGE_TOO_LARGE, 0]


@pytest.mark.parametrize("said", [
    framed(1, b"batch", INCARNATION - 1), framed(1, b""), struct.pack(">I", 0), struct.pack(">I", 17 << 20), b"\xff" * 9, b"GET / HTTP/1.1\r\n"])
def test_who_does_not_speak_our_language_is_ended(host: Host, guest: Guest, said: bytes) -> None:
    guest.socket.sendall(said)
    assert readable(host.door, WAIT_S)
    while not host.bad:
        assert host.door.read() == []
    assert guest.hears_the_end() and len(host.bad) == 1


def test_a_turn_takes_so_many_requests_and_the_next_one_the_rest(
    host: Host, guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct_door, "FRAMES_AT_ONCE", 10)
    guest.say(*[b"%d" % index for index in range(25)])
    sizes: list[int] = []
    mails: list[Mail] = []
    while len(mails) < 25:
        assert host.door.has_left or readable(host.door, WAIT_S)
        came = host.door.read()
        sizes.append(len(came))
        mails += came
    assert [bytes(mail.records) for mail in mails] == [b"%d" % index for index in range(25)]
    assert max(sizes) == 10 and not host.door.has_left


def test_busy_clients_do_not_keep_another_one_waiting(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct_door, "FRAMES_AT_ONCE", 2)
    monkeypatch.setattr(direct_door, "FRAMES_PER_TURN", 4)
    with contextlib.ExitStack() as stack:
        busy = [Guest(host.path) for _ in range(6)]
        modest = Guest(host.path)
        for guest in (*busy, modest):
            stack.enter_context(guest.socket)
        for guest in busy:
            guest.say(*[b"busy"] * 500)
        host.accept()
        assert len(host.door.read()) == 4
        modest.say(b"modest")
        turns = 0
        while b"modest" not in (came := [bytes(mail.records) for mail in host.door.read()]):
            turns += 1
            assert len(came) == 4 and turns < 8  # each of the others once, two in a turn


def test_who_takes_no_answers_is_not_read_until_it_takes_them(host: Host, guest: Guest) -> None:
    door, answered, blocked = host.door, 0, False
    while not blocked:
        guest.say(b"more")
        host.answer(*host.wait(), error=ErrorCode.MESSAGE_TOO_LARGE, message="m" * 1000)
        answered += 1
        blocked = any(connection.blocked for connection in door._connections.values())
    guest.say(b"unread")
    assert door.read() == [] and door.read() == []
    mails: list[Mail] = []
    for _ in range(answered):
        mails += door.read()  # once there is room again, what waited here leaves, and then it is read on
        assert guest.hear().error_code == ErrorCode.MESSAGE_TOO_LARGE
    assert [bytes(each.records) for each in mails or host.wait()] == [b"unread"]


def test_nobody_is_let_in_beyond_the_bound(host: Host, guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    host.accept()
    monkeypatch.setattr(direct_door, "CONNECTIONS_MAX", 1)
    other = Guest(host.path)
    with other.socket:
        host.accept()
        assert other.hears_the_end()
    guest.say(b"still here")
    assert len(host.wait()) == 1


def test_who_keeps_most_for_frames_without_an_end_is_ended(
    host: Host, guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct_door, "PARTIAL_BYTES_MAX", 100_000)
    greedy = Guest(host.path)
    with greedy.socket:
        guest.socket.sendall(framed(1, b"x" * 30_000)[:-1])
        greedy.socket.sendall(framed(1, b"x" * 200_000)[:90_000])
        while not host.bad:
            assert readable(host.door, WAIT_S)
            assert host.door.read() == []
        assert greedy.hears_the_end() and len(host.bad) == 1
    guest.socket.sendall(b"x")
    assert len(host.wait()) == 1 and host.door._kept_bytes == 0


def test_a_place_that_is_taken_already_is_an_error(host: Host) -> None:
    with pytest.raises(OSError):
        DirectDoor(host.path, INCARNATION)
