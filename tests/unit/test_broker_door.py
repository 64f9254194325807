"""The broker's side of the ZeroMQ door, with real sockets: sessions, incarnations, limits."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest
import zmq

from zafka.actors import broker_door, door_watch
from zafka.actors.broker_door import IDLE_S_MAX, Door
from zafka.transport.direct import Told, Where, encode, read_told
from zafka.transport.door import GOODBYE, WHERE, read_message, write_message

INCARNATION = 9
WAIT_MS = 5_000


class Guests:
    """What the door tells its owner."""

    def __init__(self) -> None:
        self.opened: list[int] = []
        self.closed: list[int] = []
        self.frames: list[tuple[int, bytes]] = []
        self.blocked: list[bool] = []
        self.bad: list[str] = []
        self.asked: list[tuple[int, Where]] = []
        self.now_s = 100.0

    def open_door(self, context: zmq.Context[Any], listening: socket.socket, **limits: int) -> Door:
        host, port = listening.getsockname()
        return Door(
            context, name="zmq", bind=f"{host}:{port}", fd=listening.fileno(), incarnation=INCARNATION,
            frame_bytes_max=1 << 20, sessions_max=limits.get("sessions_max", 10),
            on_open=lambda connection_id, listener, peer: self.opened.append(connection_id),
            on_frame=lambda connection_id, frame: self.frames.append((connection_id, bytes(frame))),
            on_blocked=lambda connection_id, blocked: self.blocked.append(blocked),
            on_where=lambda connection_id, where: self.asked.append((connection_id, where)),
            on_close=self.closed.append, on_bad_peer=lambda peer, reason: self.bad.append(reason), clock=lambda: self.now_s)


class Guest:
    def __init__(self, context: zmq.Context[Any], port: int, session: int = 5) -> None:
        self.session = session
        self.socket = context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.connect(f"tcp://127.0.0.1:{port}")

    def say(self, body: bytes = b"", *, incarnation: int = INCARNATION, session: int | None = None) -> None:
        self.socket.send_multipart(write_message(self.session if session is None else session, incarnation, body))

    def hear(self) -> tuple[int, int, bytes]:
        assert self.socket.poll(WAIT_MS), "the door says nothing"
        message = read_message(self.socket.recv_multipart())
        return message.session, message.incarnation, bytes(message.body)


@pytest.fixture
def context() -> Iterator[zmq.Context[Any]]:
    with zmq.Context() as context:
        yield context
        context.destroy(linger=0)


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


def read(door: Door) -> None:
    assert door.socket.poll(WAIT_MS), "nothing came"
    door.read()


def test_a_hello_opens_a_session_and_a_request_is_handed_on(
    context: zmq.Context[Any], listening: socket.socket
) -> None:
    guests = Guests()
    door = guests.open_door(context, listening)
    guest = Guest(context, listening.getsockname()[1])
    guest.say(incarnation=0)
    read(door)
    assert guest.hear() == (5, INCARNATION, b"") and guests.opened == [1]
    guest.say(b"request")
    read(door)
    assert guests.frames == [(1, b"request")] and door.owns(1)
    door.write(1, [[b"ans", memoryview(b"wer")], [b"x" * 100_000]])
    assert guest.hear() == (5, INCARNATION, b"answer")
    assert guest.hear() == (5, INCARNATION, b"x" * 100_000)
    guest.say(incarnation=GOODBYE)
    read(door)
    assert guests.closed == [1] and not door.owns(1)
    door.shut(0)


def test_a_request_for_another_incarnation_is_not_run(context: zmq.Context[Any], listening: socket.socket) -> None:
    guests = Guests()
    door = guests.open_door(context, listening)
    guest = Guest(context, listening.getsockname()[1])
    guest.say(b"request", incarnation=INCARNATION - 1)
    read(door)
    assert guest.hear() == (5, INCARNATION, b"") and not guests.frames
    door.shut(0)


def test_a_request_without_a_session_and_nonsense_start_nothing(
    context: zmq.Context[Any], listening: socket.socket
) -> None:
    guests = Guests()
    door = guests.open_door(context, listening)
    guest = Guest(context, listening.getsockname()[1])
    guest.socket.send_multipart([b"non", b"sense", b"!"])
    guest.say(b"request")
    while not guest.socket.poll(50):
        door.read()
    assert guest.hear() == (5, GOODBYE, b"") and not guests.opened and not guests.frames
    door.shut(0)


def test_a_question_for_the_way_past_the_broker(context: zmq.Context[Any], listening: socket.socket) -> None:
    guests = Guests()
    door = guests.open_door(context, listening)
    guest = Guest(context, listening.getsockname()[1])
    guest.say(encode(Where("t", 0)), incarnation=WHERE)
    read(door)
    assert guest.hear() == (5, GOODBYE, b"") and not guests.asked  # a session begins with a hello
    guest.say()
    read(door)
    guest.hear()
    guest.say(b"nonsense", incarnation=WHERE)
    guest.say(encode(Where("t" * 600, 0)), incarnation=WHERE)
    guest.say(encode(Where("t", 0)), incarnation=WHERE)
    while not guests.asked:
        door.read()
    assert guests.asked == [(1, Where("t", 0))] and not guests.frames and not guests.bad
    door.tell(1, Told("t", 0, 4, 2, "/path"))
    session, incarnation, body = guest.hear()
    assert (session, incarnation, read_told(body)) == (5, WHERE, Told("t", 0, 4, 2, "/path"))
    door.pause(1)
    guest.say(encode(Where("t", 1)), incarnation=WHERE)
    read(door)
    assert len(guests.asked) == 1  # who has to wait with requests gets no more answers either
    door.tell(2, Told("t", 0))
    door.shut(0)


def test_a_new_session_of_the_same_socket_ends_the_old_one(
    context: zmq.Context[Any], listening: socket.socket
) -> None:
    guests = Guests()
    door = guests.open_door(context, listening)
    guest = Guest(context, listening.getsockname()[1])
    guest.say()
    read(door)
    guest.say(session=6)
    read(door)
    assert (guests.opened, guests.closed) == ([1, 2], [1])
    door.shut(0)


def test_too_many_sessions_silent_ones_and_paused_ones(
    context: zmq.Context[Any], listening: socket.socket
) -> None:
    guests = Guests()
    door = guests.open_door(context, listening, sessions_max=1)
    first, second = (Guest(context, listening.getsockname()[1], session) for session in (5, 6))
    first.say()
    read(door)
    second.say()
    read(door)
    assert second.hear() == (6, GOODBYE, b"") and guests.opened == [1]
    door.pause(1)
    first.say(b"request")
    first.say(b"and one more")
    read(door)
    while door.socket.poll(50):
        door.read()
    assert not guests.frames
    door.resume(1)
    assert guests.frames == [(1, b"request"), (1, b"and one more")]
    guests.now_s += IDLE_S_MAX + 1
    door.sweep()
    assert guests.closed == [1] and "connections.max.idle.ms" in guests.bad[0]
    assert first.hear() == (5, INCARNATION, b"")
    assert first.hear() == (5, GOODBYE, b"")
    door.shut(0)


def test_a_guest_that_takes_nothing_blocks_itself_only_and_is_let_go_in_the_end(
    context: zmq.Context[Any], listening: socket.socket
) -> None:
    guests = Guests()
    door = guests.open_door(context, listening)
    port = listening.getsockname()[1]
    # No hands to take with: it reads nothing, and its own queue is short.
    lazy, other = Guest(context, port, 5), Guest(context, port, 6)
    for guest in (lazy, other):
        guest.say()
        read(door)
    other.hear()
    answer = [[bytes(1 << 20)]]
    while not guests.blocked:
        door.write(1, answer)
    assert guests.blocked == [True] and door.queued
    door.write(2, [[b"still here"]])
    assert other.hear() == (6, INCARNATION, b"still here")
    for _ in range(100):
        door.write(1, answer)
    assert guests.closed == [1] and not door.queued
    lazy.socket.close()
    door.shut(0)


def test_a_guest_that_has_to_wait_holds_up_nobody_and_is_ended_if_it_takes_nothing(
    context: zmq.Context[Any], listening: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_door, "PENNED_BYTES_MAX", 5000)
    guests = Guests()
    door = guests.open_door(context, listening)
    port = listening.getsockname()[1]
    lazy, other = Guest(context, port, 5), Guest(context, port, 6)
    for guest in (lazy, other):
        guest.say()
        read(door)
    while not guests.blocked:
        door.write(1, [[bytes(1 << 20)]])
    door.pause(1)
    lazy.say(bytes(4000))
    read(door)
    other.say(b"request")
    read(door)
    assert guests.frames == [(2, b"request")] and not guests.closed
    lazy.say(bytes(4000))
    read(door)
    assert guests.closed == [1] and "takes no answers" in guests.bad[0]
    assert door.readable or not door.socket.poll(0)
    door.shut(0)


def test_who_takes_its_answers_is_not_ended_but_waited_for(
    context: zmq.Context[Any], listening: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_door, "PENNED_BYTES_MAX", 5000)
    guests = Guests()
    door = guests.open_door(context, listening)
    guest = Guest(context, listening.getsockname()[1])
    guest.say()
    read(door)
    door.pause(1)
    for number in range(4):
        guest.say(bytes([number]) * 3000)
    while not guests.closed and door.socket.poll(500) and door.readable:
        door.read()
    assert not guests.closed and not guests.frames and not door.readable
    door.resume(1)
    while len(guests.frames) < 4:
        read(door)
    assert [frame[0] for _, frame in guests.frames] == [0, 1, 2, 3]
    door.shut(0)


def test_few_large_answers_are_handed_to_zeromq_which_counts_no_bytes(
    context: zmq.Context[Any], listening: socket.socket
) -> None:
    guests = Guests()
    door = guests.open_door(context, listening)
    lazy = Guest(context, listening.getsockname()[1])
    lazy.socket.setsockopt(zmq.RCVHWM, 1)
    lazy.say()
    read(door)
    written = 0
    while not guests.blocked:
        door.write(1, [[bytes(20 << 20)]])
        written += 1
    assert written <= 5  # and not the 64 that may be small
    door.shut(0)


def hand_shake(port: int) -> socket.socket:
    """A ZMTP client by hand, when both ends are ready: who says something before that is hung up on."""
    peer = socket.create_connection(("127.0.0.1", port))
    peer.sendall(b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32))
    peer.sendall(b"\x04\x1c\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER")
    peer.settimeout(WAIT_MS / 1000)
    heard = b""
    while len(heard) < 66 or len(heard) < 66 + heard[65]:  # a greeting, and a command with its size
        heard += peer.recv(200)
    return peer


def is_ended(peer: socket.socket) -> bool:
    try:
        while peer.recv(4096):
            pass
    except ConnectionError:
        pass
    return True


def test_a_message_without_an_end_is_ended_and_long_good_sessions_are_not(
    context: zmq.Context[Any], listening: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door_watch, "UNREAD_BYTES_MAX", 1 << 20)
    guests = Guests()
    door = guests.open_door(context, listening)
    port = listening.getsockname()[1]
    good = Guest(context, port)
    good.say()
    read(door)
    with hand_shake(port) as endless:
        for number in range(30):
            good.say(bytes(100_000))
            with contextlib.suppress(ConnectionError):  # ended while it writes
                endless.sendall(b"\x03" + struct.pack(">Q", 50_000) + bytes(50_000))
            while len(guests.frames) <= number:
                read(door)
            door.watch()
            if guests.bad:
                break
        while not guests.bad:
            door.watch()
        assert is_ended(endless)
    assert len(guests.bad) == 1 and "does not end" in guests.bad[0]
    good.say(b"still here")
    while guests.frames[-1] != (1, b"still here"):
        read(door)
    door.shut(0)


def test_connections_beyond_those_that_may_be_are_ended(
    context: zmq.Context[Any], listening: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door_watch, "CONNECTIONS_SPARE", 2)
    guests = Guests()
    door = guests.open_door(context, listening, sessions_max=3)
    port = listening.getsockname()[1]
    first = Guest(context, port)
    first.say()
    read(door)
    with contextlib.ExitStack() as stack:
        late = [stack.enter_context(hand_shake(port)) for _ in range(8)]
        assert len(late) == 8
        door.watch()
        assert len(guests.bad) == 4 and all("5 connections already" in reason for reason in guests.bad)
    assert first.hear() == (5, INCARNATION, b"")
    first.say(b"still here")
    read(door)
    assert guests.frames == [(1, b"still here")]
    door.shut(0)


def test_descriptors_elsewhere_are_not_looked_at(
    context: zmq.Context[Any], listening: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door_watch, "CONNECTIONS_SPARE", 0)
    guests = Guests()
    door = guests.open_door(context, listening, sessions_max=1)
    port = listening.getsockname()[1]
    looked: list[str] = []
    readlink = os.readlink
    monkeypatch.setattr(os, "readlink", lambda path: looked.append(path) or readlink(path))
    with hand_shake(port), hand_shake(port) as late:
        door.watch(elsewhere={late.fileno()})
        assert len(guests.bad) == 1
        assert len(looked) > 1 and f"/proc/self/fd/{late.fileno()}" not in looked
    door.shut(0)


def test_what_waited_is_sent_when_the_guest_takes_it(context: zmq.Context[Any], listening: socket.socket) -> None:
    guests = Guests()
    door = guests.open_door(context, listening)
    guest = Guest(context, listening.getsockname()[1])
    guest.say()
    read(door)
    count = 0
    while not guests.blocked:
        door.write(1, [[count.to_bytes(4, "big") + bytes(1 << 20)]])
        count += 1
    assert guest.hear() == (5, INCARNATION, b"")
    for index in range(count):
        for _ in range(WAIT_MS):  # ZeroMQ says a little later that it is done with an answer
            door.retry()
            if guest.socket.poll(5):
                break
        assert guest.hear()[2][:4] == index.to_bytes(4, "big")
    assert guests.blocked == [True, False] and not guests.closed
    door.shut(0)


def test_the_next_incarnation_takes_over_the_listening_socket(
    context: zmq.Context[Any], listening: socket.socket
) -> None:
    guests = Guests()
    with zmq.Context() as old_context:
        guests.open_door(old_context, listening).shut(0)
    guest = Guest(context, listening.getsockname()[1])
    guest.say()
    with zmq.Context() as next_context:
        door = guests.open_door(next_context, listening)
        read(door)
        assert guest.hear() == (5, INCARNATION, b"")
        door.shut(0)
