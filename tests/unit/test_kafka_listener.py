"""The Kafka TCP listener over real sockets, in asyncio's loop and in uvloop's. Time is the test's own."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import stat
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop

from zafka.transport.kafka.connection import FIRST_PIECE_BYTES, Connection, Pause
from zafka.transport.kafka.listener import Limits, Listener
from zafka.transport.kafka.types import Buffer

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
Scenario = Callable[[], Coroutine[Any, Any, None]]


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Callable[[Scenario], None]:
    def run_scenario(scenario: Scenario) -> None:
        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            runner.run(asyncio.wait_for(scenario(), 20))

    return run_scenario


class Owner:
    """Records what the listener says, and waits for it."""

    def __init__(self, limits: Limits) -> None:
        self.opened: list[tuple[int, str, str]] = []
        self.frames: list[tuple[int, memoryview]] = []
        self.closed: list[int] = []
        self.bad: list[str] = []
        self.happened = asyncio.Event()
        self.on_frame: Callable[[int, memoryview], None] = lambda connection_id, frame: None
        self.time_s = 1000.0
        self.listener = Listener(
            on_open=lambda *arguments: self._record(self.opened, arguments),
            on_frame=self._frame,
            on_close=lambda connection_id: self._record(self.closed, connection_id),
            on_bad_peer=lambda peer, reason: self._record(self.bad, reason),
            limits=limits,
        )
        self.listener.now_s = lambda: self.time_s
        self.address: tuple[str, int] = ("", 0)

    def _record(self, events: list[Any], event: Any) -> None:
        events.append(event)
        self.happened.set()

    def _frame(self, connection_id: int, frame: memoryview) -> None:
        self._record(self.frames, (connection_id, frame))
        self.on_frame(connection_id, frame)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition that becomes true within a callback of the listener."""
        while not condition():
            self.happened.clear()
            await self.happened.wait()

    def connection(self, connection_id: int) -> Connection:
        return self.listener._connections[connection_id]

    def pass_time(self, seconds: float) -> None:
        self.time_s += seconds
        self.listener.sweep(seconds)


async def turns(condition: Callable[[], bool] = lambda: False, count: int = 200_000) -> bool:
    """Let the loop turn until the condition holds; False if it does not within so many turns."""
    for _ in range(count):
        if condition():
            return True
        await asyncio.sleep(0)
    return False


def listening_socket() -> socket.socket:
    listening = socket.create_server(("127.0.0.1", 0))
    listening.listen(100)
    return listening


@asynccontextmanager
async def owner(**limits: Any) -> AsyncIterator[Owner]:
    listening = listening_socket()
    recorder = Owner(Limits(**limits))
    recorder.address = listening.getsockname()
    await recorder.listener.listen(listening, "outside")
    yield recorder
    recorder.listener.abort_all()
    await recorder.until(lambda: len(recorder.closed) == len(recorder.opened))


class Peer:
    """A client on plain asyncio sockets, so that it is in charge of every byte."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.loop = asyncio.get_running_loop()

    @classmethod
    async def connect(cls, address: tuple[str, int], *, receive_buffer: int = 0) -> Peer:
        sock = socket.socket()
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setblocking(False)
        peer = cls(sock)
        await peer.loop.sock_connect(sock, address)
        return peer

    async def send(self, data: bytes) -> None:
        await self.loop.sock_sendall(self.sock, data)

    async def receive(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            piece = await self.loop.sock_recv(self.sock, size - len(data))
            if not piece:
                break
            data += piece
        return bytes(data)

    def reset(self) -> None:
        """Close with RST instead of FIN."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


def peer_port(descriptor: int) -> int:
    with socket.socket(fileno=os.dup(descriptor)) as held:
        return int(held.getpeername()[1])


def framed(*frames: bytes) -> bytes:
    return b"".join(struct.pack(">i", len(frame)) + frame for frame in frames)


def test_descriptors_are_those_of_the_connections_and_open_while_they_are_named(run: Callable[[Scenario], None]) -> None:
    async def scenario() -> None:
        async with owner(connections_max=3) as recorder:
            listener = recorder.listener
            peers = [await Peer.connect(recorder.address) for _ in range(4)]
            await recorder.until(lambda: len(recorder.opened) == 3 and len(recorder.bad) == 1)
            assert set(map(peer_port, listener.descriptors)) == {peer.sock.getsockname()[1] for peer in peers[:3]}
            descriptors = [recorder.connection(connection_id).descriptor for connection_id in (1, 2, 3)]
            peers[0].reset()
            listener.close(2, at_once=True)
            still_open: list[bool] = []

            def on_close(connection_id: int) -> None:
                still_open.append(stat.S_ISSOCK(os.fstat(descriptors[connection_id - 1]).st_mode))
                recorder._record(recorder.closed, connection_id)

            listener.on_close = on_close
            await recorder.until(lambda: len(recorder.closed) == 2)
            assert still_open == [True, True] and listener.descriptors == {descriptors[2]}

    run(scenario)


# -- frames -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_frames_arrive_whole_and_in_order_however_the_stream_is_cut(run: Callable[[Scenario], None], seed: int) -> None:
    async def scenario() -> None:
        rng = random.Random(seed)
        sizes = [0, 1, 3, 4, 5, 100, 100, 65_531, 65_532, 65_533, 65_536, 131_072, 262_144, 262_145, 1 << 20, 3 << 20]
        frames = [rng.randbytes(rng.choice(sizes)) for _ in range(30)]
        stream = framed(*frames)
        async with owner() as recorder:
            peer = await Peer.connect(recorder.address)
            position = 0
            while position < len(stream):
                size = rng.choice((1, 2, 3, 5, 1000, 65_536, 200_000))
                await peer.send(stream[position : position + size])
                position += size
            await recorder.until(lambda: len(recorder.frames) == len(frames))
            # Every frame is as it was, although later ones came through the same scratch buffer.
            assert [bytes(frame) for _, frame in recorder.frames] == frames
            assert recorder.listener._large_frames_bytes == 0
            assert recorder.connection(1).frame_since_s is None
            peer.sock.close()

    run(scenario)


def test_connections_are_told_apart_and_reported_once(run: Callable[[Scenario], None]) -> None:
    async def scenario() -> None:
        async with owner() as recorder:
            first, second = [await Peer.connect(recorder.address) for _ in range(2)]
            await second.send(framed(b"two"))
            await recorder.until(lambda: len(recorder.frames) == 1)
            await first.send(framed(b"one"))
            await recorder.until(lambda: len(recorder.frames) == 2)
            addresses = {
                f"127.0.0.1:{peer.sock.getsockname()[1]}": name for peer, name in ((first, "1"), (second, "2"))
            }
            names = {connection_id: addresses[peer] for connection_id, _, peer in recorder.opened}
            assert [(names[connection_id], bytes(frame)) for connection_id, frame in recorder.frames] == [
                ("2", b"two"),
                ("1", b"one"),
            ]
            assert {name for _, name, _ in recorder.opened} == {"outside"}
            first.sock.close()
            second.reset()
            await recorder.until(lambda: len(recorder.closed) == 2)
            assert sorted(recorder.closed) == [1, 2] and recorder.bad == []

    run(scenario)


def test_connections_that_came_before_the_doors_opened_are_served(run: Callable[[Scenario], None]) -> None:
    async def scenario() -> None:
        listening = listening_socket()
        recorder = Owner(Limits())
        peer = await Peer.connect(listening.getsockname())
        await peer.send(framed(b"early"))
        await recorder.listener.listen(listening, "outside")
        await recorder.until(lambda: len(recorder.frames) == 1)
        recorder.listener.abort_all()
        peer.sock.close()

    run(scenario)


@pytest.mark.parametrize("end", ["close", "reset"])
def test_a_connection_that_ends_within_a_frame_delivers_nothing(run: Callable[[Scenario], None], end: str) -> None:
    async def scenario() -> None:
        async with owner() as recorder:
            peer = await Peer.connect(recorder.address)
            await peer.send(framed(b"whole", b"x" * 1000)[:-1])
            await recorder.until(lambda: len(recorder.frames) == 1)
            peer.sock.close() if end == "close" else peer.reset()
            await recorder.until(lambda: recorder.closed == [1])
            assert len(recorder.frames) == 1

    run(scenario)


# -- answers ------------------------------------------------------------------------------------------


def test_answers_of_every_size_arrive_in_order(run: Callable[[Scenario], None]) -> None:
    async def scenario() -> None:
        rng = random.Random(1)
        large = memoryview(rng.randbytes(3 << 20))
        answers: list[list[Buffer]] = [
            [b"head", large[:n], b"middle", large[n : 2 * n]] for n in (0, 10, 4095, 4096, 100_000, 1 << 20)
        ]
        async with owner() as recorder:
            peer = await Peer.connect(recorder.address)
            await peer.send(framed(b"hello"))
            await recorder.until(lambda: len(recorder.frames) == 1)
            expected = framed(*(b"".join(answer) for answer in answers))
            for answer in answers:
                recorder.listener.write(1, [answer])
            recorder.listener.write(1, answers)
            recorder.listener.write(1, [])
            assert await peer.receive(2 * len(expected)) == expected * 2
            recorder.listener.write(99, [[b"to nobody"]])
            peer.sock.close()

    run(scenario)


def test_a_peer_that_does_not_take_its_answers_is_not_read(run: Callable[[Scenario], None]) -> None:
    answer, requests = b"a" * 50_000, 3000

    async def scenario() -> None:
        async with owner(write_buffer_bytes_max=200_000) as recorder:
            recorder.on_frame = lambda connection_id, frame: recorder.listener.write(connection_id, [[answer]])
            peer = await Peer.connect(recorder.address, receive_buffer=10_000)
            sending = asyncio.ensure_future(peer.send(framed(*[b"r" * 1000] * requests)))
            await recorder.until(lambda: len(recorder.frames) > 0)
            connection = recorder.connection(1)
            assert await turns(lambda: connection.pauses == Pause.ANSWERS)
            # Until answers can leave there are at most the requests of one read more, and then none.
            count = len(recorder.frames)
            await turns(count=500)
            assert len(recorder.frames) - count < 1000 and count < requests
            assert len(await peer.receive(requests * (len(answer) + 4))) == requests * (len(answer) + 4)
            await sending
            assert len(recorder.frames) == requests and not connection.pauses
            peer.sock.close()

    run(scenario)


def test_a_closed_connection_sends_what_was_written_and_reads_no_more(run: Callable[[Scenario], None]) -> None:
    async def scenario() -> None:
        async with owner() as recorder:

            def answer_and_close(connection_id: int, frame: memoryview) -> None:
                recorder.listener.write(connection_id, [[b"x" * 500_000]])
                recorder.listener.close(connection_id, "it said goodbye")
                recorder.listener.write(connection_id, [[b"too late"]])

            recorder.on_frame = answer_and_close
            peer = await Peer.connect(recorder.address)
            await peer.send(framed(b"one", b"two"))
            await peer.send(framed(b"three"))
            assert len(await peer.receive(1 << 20)) == 500_004
            peer.sock.close()
            await recorder.until(lambda: recorder.closed == [1])
            assert len(recorder.frames) == 1 and recorder.bad == ["it said goodbye"]

    run(scenario)


def test_doors_close_without_cutting_answers_off(run: Callable[[Scenario], None]) -> None:
    async def scenario() -> None:
        async with owner() as recorder:
            peer = await Peer.connect(recorder.address)
            await peer.send(framed(b"one"))
            await recorder.until(lambda: len(recorder.frames) == 1)
            recorder.listener.close_doors()
            await peer.send(framed(b"two"))
            with pytest.raises(ConnectionRefusedError):
                await Peer.connect(recorder.address)
            recorder.listener.write(1, [[b"x" * 300_000]])
            recorder.listener.close_all()
            assert len(await peer.receive(1 << 20)) == 300_004
            peer.sock.close()
            await recorder.until(lambda: recorder.closed == [1])
            assert len(recorder.frames) == 1

    run(scenario)


# -- limits -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("beginning", "reason"),
    [
        (struct.pack(">i", 1001), "a frame of 1001 bytes; at most 1000"),
        (struct.pack(">i", -1), "a frame of -1 bytes"),
        (b"\x16\x03\x01\x02\x00\x01\x00", "TLS"),
        (b"GET / HTTP/1.1\r\n\r\n", "HTTP"),
    ],
)
def test_a_length_that_is_none_ends_the_connection(
    run: Callable[[Scenario], None], beginning: bytes, reason: str
) -> None:
    async def scenario() -> None:
        async with owner(frame_bytes_max=1000) as recorder:
            peer = await Peer.connect(recorder.address)
            await peer.send(framed(b"x" * 1000) + beginning)
            await recorder.until(lambda: recorder.closed == [1])
            assert len(recorder.frames) == 1
            assert len(recorder.bad) == 1 and reason in recorder.bad[0]
            peer.sock.close()

    run(scenario)


def test_connections_beyond_the_limit_are_closed_at_once(run: Callable[[Scenario], None]) -> None:
    async def scenario() -> None:
        async with owner(connections_max=2) as recorder:
            peers = [await Peer.connect(recorder.address) for _ in range(2)]
            await recorder.until(lambda: len(recorder.opened) == 2)
            third = await Peer.connect(recorder.address)
            await recorder.until(lambda: len(recorder.bad) == 1)
            with pytest.raises(ConnectionResetError):
                assert await third.receive(1) == b""
                raise ConnectionResetError  # a FIN is as good
            peers.pop().sock.close()
            await recorder.until(lambda: len(recorder.closed) == 1)
            fourth = await Peer.connect(recorder.address)
            await recorder.until(lambda: len(recorder.opened) == 3)
            for peer in (*peers, third, fourth):
                peer.sock.close()

    run(scenario)


def test_announcing_a_large_frame_costs_little(run: Callable[[Scenario], None]) -> None:
    async def scenario() -> None:
        async with owner() as recorder:
            peer = await Peer.connect(recorder.address)
            await peer.send(struct.pack(">i", 100 << 20) + b"x" * 10)
            await recorder.until(lambda: len(recorder.opened) == 1)
            connection = recorder.connection(1)
            assert await turns(lambda: connection.frame_size == 100 << 20)
            assert connection._frame is not None and len(connection._frame) == FIRST_PIECE_BYTES
            assert connection.large_frame_bytes == 0
            peer.sock.close()

    run(scenario)


def test_large_frames_wait_for_their_turn(run: Callable[[Scenario], None]) -> None:
    frame = random.Random(2).randbytes(3 << 20)

    async def scenario() -> None:
        async with owner(large_frames_bytes_max=4 << 20) as recorder:
            first, second, third = [await Peer.connect(recorder.address) for _ in range(3)]
            await first.send(framed(frame)[: 2 << 20])
            await recorder.until(lambda: len(recorder.opened) == 3)
            assert await turns(lambda: recorder.listener._large_frames_bytes == 3 << 20)
            sending = [asyncio.ensure_future(peer.send(framed(frame))) for peer in (second, third)]
            assert await turns(lambda: len(recorder.listener._waiting) == 2)
            waiting = [connection.id for connection in recorder.listener._waiting]
            assert all(recorder.connection(number).pauses == Pause.LARGE_FRAMES for number in waiting)
            recorder.pass_time(500)  # waiting for us is not being slow; being the one waited for is
            assert len(recorder.bad) == 1 and "not complete" in recorder.bad[0]
            await recorder.until(lambda: len(recorder.frames) == 2)
            assert [connection_id for connection_id, _ in recorder.frames] == waiting
            assert all(bytes(received) == frame for _, received in recorder.frames)
            assert recorder.listener._large_frames_bytes == 0
            await asyncio.gather(*sending)
            for peer in (first, second, third):
                peer.sock.close()

    run(scenario)


def test_a_waiting_large_frame_whose_peer_leaves_is_passed_over(run: Callable[[Scenario], None]) -> None:
    frame = b"x" * (3 << 20)

    async def scenario() -> None:
        async with owner(large_frames_bytes_max=1) as recorder:
            first, second = [await Peer.connect(recorder.address) for _ in range(2)]
            await first.send(framed(frame)[: 2 << 20])
            assert await turns(lambda: recorder.listener._large_frames_bytes == len(frame))
            await second.send(framed(frame)[:300_000])
            assert await turns(lambda: len(recorder.listener._waiting) == 1)
            recorder.connection(recorder.listener._waiting[0].id).abort()
            await recorder.until(lambda: len(recorder.closed) == 1)
            await first.send(framed(frame)[2 << 20 :])
            await recorder.until(lambda: len(recorder.frames) == 1)
            assert not recorder.listener._waiting and recorder.listener._large_frames_bytes == 0
            first.sock.close()
            second.sock.close()

    run(scenario)


def test_the_owner_pauses_and_resumes_reading(run: Callable[[Scenario], None]) -> None:
    async def scenario() -> None:
        async with owner() as recorder:
            recorder.on_frame = lambda connection_id, frame: recorder.listener.pause_reading(connection_id)
            peer = await Peer.connect(recorder.address)
            for number in range(3):
                await peer.send(framed(b"x"))
                await recorder.until(lambda number=number: len(recorder.frames) == number + 1)  # type: ignore[misc]
                await peer.send(framed(b"later"))
                await turns(count=100)
                assert len(recorder.frames) == number + 1
                recorder.on_frame = lambda connection_id, frame: None
                recorder.listener.resume_reading(1)
                await recorder.until(lambda number=number: len(recorder.frames) == number + 2)  # type: ignore[misc]
                recorder.frames.pop()
                recorder.on_frame = lambda connection_id, frame: recorder.listener.pause_reading(connection_id)
            recorder.listener.resume_reading(99)
            recorder.listener.pause_reading(99)
            peer.sock.close()

    run(scenario)


# -- time ---------------------------------------------------------------------------------------------


def test_a_frame_that_is_not_finished_in_time_ends_the_connection(run: Callable[[Scenario], None]) -> None:
    async def scenario() -> None:
        async with owner(frame_s_max=30, frame_bytes_per_s_min=1000) as recorder:
            peer = await Peer.connect(recorder.address)
            await peer.send(framed(b"whole", b"x" * 10_000)[:-1])
            await recorder.until(lambda: len(recorder.frames) == 1)
            recorder.pass_time(39)
            assert recorder.bad == []
            recorder.pass_time(2)
            assert recorder.bad == ["a request was not complete within 40 s"]
            await recorder.until(lambda: recorder.closed == [1])
            peer.sock.close()

    run(scenario)


def test_single_bytes_of_a_length_do_not_keep_a_connection_alive(run: Callable[[Scenario], None]) -> None:
    async def scenario() -> None:
        async with owner(frame_s_max=30, idle_s_max=1000) as recorder:
            peer = await Peer.connect(recorder.address)
            await peer.send(b"\0\0")
            await recorder.until(lambda: len(recorder.opened) == 1)
            assert await turns(lambda: recorder.connection(1)._head == b"\0\0")
            recorder.pass_time(20)
            await peer.send(b"\0")
            assert await turns(lambda: recorder.connection(1)._head == b"\0\0\0")
            recorder.pass_time(20)
            assert recorder.bad == ["a request was not complete within 30 s"]
            peer.sock.close()

    run(scenario)


def test_a_connection_that_says_nothing_is_ended_and_an_idle_one_later(run: Callable[[Scenario], None]) -> None:
    async def scenario() -> None:
        async with owner(frame_s_max=30, idle_s_max=600) as recorder:
            silent, once = [await Peer.connect(recorder.address) for _ in range(2)]
            await once.send(framed(b"hello"))
            await recorder.until(lambda: len(recorder.frames) == 1 and len(recorder.opened) == 2)
            recorder.pass_time(31)
            assert recorder.bad == ["a request was not complete within 30 s"]
            recorder.pass_time(560)
            recorder.listener.write(recorder.frames[0][0], [[b"an answer, late"]])
            recorder.pass_time(560)
            assert len(recorder.bad) == 1
            recorder.pass_time(50)
            assert recorder.bad[1] == "nothing came within 600 s (connections.max.idle.ms)"
            silent.sock.close()
            once.sock.close()

    run(scenario)


def test_time_in_which_we_do_not_read_is_not_the_peers(run: Callable[[Scenario], None]) -> None:
    async def scenario() -> None:
        async with owner(frame_s_max=30) as recorder:
            recorder.on_frame = lambda connection_id, frame: recorder.listener.pause_reading(connection_id)
            peer = await Peer.connect(recorder.address)
            await peer.send(framed(b"one", b"two")[:-1])
            await recorder.until(lambda: len(recorder.frames) == 1)
            for _ in range(10):
                recorder.pass_time(10)
            assert recorder.bad == []
            recorder.listener.resume_reading(1)
            recorder.pass_time(31)
            assert len(recorder.bad) == 1
            peer.sock.close()

    run(scenario)


def test_a_peer_that_never_takes_its_last_answers_is_cut_off(run: Callable[[Scenario], None]) -> None:
    async def scenario() -> None:
        async with owner(close_s_max=10) as recorder:
            peer = await Peer.connect(recorder.address, receive_buffer=10_000)
            await peer.send(framed(b"hello"))
            await recorder.until(lambda: len(recorder.frames) == 1)
            recorder.listener.write(1, [[bytes(20 << 20)]])
            recorder.listener.close(1)
            await turns(count=100)
            assert recorder.closed == []
            recorder.pass_time(11)
            await recorder.until(lambda: recorder.closed == [1])
            peer.sock.close()

    run(scenario)
