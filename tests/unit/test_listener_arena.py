"""Large frames are received into the arena, as far as it has room; what is never complete is given back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from tests.unit.test_kafka_listener import LOOPS, Owner, Peer, Scenario, framed, owner, turns
from zafka.transport.arena import SLICE_BYTES_MIN, Arena, Offer, Slice
from zafka.transport.kafka.connection import FIRST_PIECE_BYTES, LARGE_FRAME_BYTES

Run = Callable[[Scenario], None]
LARGE = bytes(range(256)) * 2000


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Run:
    def run_scenario(scenario: Scenario) -> None:
        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            runner.run(asyncio.wait_for(scenario(), 20))

    return run_scenario


@asynccontextmanager
async def lender(size: int) -> AsyncIterator[tuple[Owner, Arena, list[Slice]]]:
    async with owner() as recorder:
        arena, slices = Arena(bytearray(size), Offer(0, 0, 0, 0, 0)), list[Slice]()
        recorder.listener.arena = arena
        recorder.listener.on_slice = lambda connection_id, slice_: recorder._record(slices, slice_)
        yield recorder, arena, slices


def test_a_large_frame_lies_in_a_slice_and_a_small_one_does_not(run: Run) -> None:
    async def scenario() -> None:
        async with lender(4 << 20) as (recorder, arena, slices):
            peer = await Peer.connect(recorder.address)
            await peer.send(framed(LARGE) + framed(b"small") + framed(LARGE[1:]))
            await recorder.until(lambda: len(slices) == 2)
            assert [slice_.view for slice_ in slices] == [LARGE, LARGE[1:]]
            assert [bytes(each) for _, each in recorder.frames] == [b"small"]
            for slice_ in slices:
                assert arena.place_of(slice_.view) == slice_.position
                slice_.release()
            assert not arena.used
            peer.sock.close()

    run(scenario)


def test_without_room_a_frame_gets_a_buffer_of_its_own(run: Run) -> None:
    async def scenario() -> None:
        async with lender(1 << 20) as (recorder, _, slices):
            peer = await Peer.connect(recorder.address)
            await peer.send(framed(LARGE) * 4)
            await recorder.until(lambda: len(slices) + len(recorder.frames) == 4)
            assert len(slices) == 2
            assert all(each == LARGE for _, each in recorder.frames)
            peer.sock.close()

    run(scenario)


def test_what_is_not_complete_when_the_connection_ends_is_given_back(run: Run) -> None:
    async def scenario() -> None:
        async with lender(4 << 20) as (recorder, arena, slices):
            for end in ("peer", "abort", "close"):
                peer = await Peer.connect(recorder.address)
                await peer.send(framed(LARGE)[:-1])
                assert await turns(lambda: any(
                    each._filled == len(LARGE) - 1 for each in recorder.listener._connections.values()))
                assert arena.used
                (connection_id,) = recorder.listener._connections
                if end != "peer":
                    recorder.listener.close(connection_id, at_once=end == "abort")
                if end == "close":
                    assert not arena.used
                    await peer.send(b"x")  # it is not for anybody any more
                peer.sock.close()
                await recorder.until(lambda: not recorder.listener._connections)
                assert not arena.used and not slices

    run(scenario)


def test_who_announces_much_takes_room_for_it_once_a_piece_has_come(run: Run) -> None:
    async def scenario() -> None:
        async with lender(16 << 20) as (recorder, arena, slices):
            data = bytes(LARGE_FRAME_BYTES + SLICE_BYTES_MIN)
            peer = await Peer.connect(recorder.address)
            await peer.send(framed(data)[:100])
            assert await turns(lambda: any(each._filled for each in recorder.listener._connections.values()))
            assert not arena.used
            await peer.send(framed(data)[100 : 2 * FIRST_PIECE_BYTES])
            assert await turns(lambda: arena.used > 0)
            await peer.send(framed(data)[2 * FIRST_PIECE_BYTES :])
            await recorder.until(lambda: bool(slices))
            assert slices[0].view == data
            peer.sock.close()

    run(scenario)
