"""The board: who sees which rules, and that each hit counts once, whoever makes it."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from zafka.runtime.faults.board import Board, Watch
from zafka.runtime.faults.kinds import ApiFault, Crash, DiskError, MailFault

DROP = MailFault(what="drop", sender="broker *", receiver="partition orders-*")
CRASH = Crash(target="partition orders-0", point="after-append")


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def board(tmp_path: Path, clock: Clock) -> Iterator[Board]:
    board = Board(tmp_path / "faults", clock=clock)
    yield board
    board.close()


@pytest.fixture
def watch(board: Board, clock: Clock) -> Iterator[Callable[[str], Watch]]:
    made: list[Watch] = []

    def watch(name: str) -> Watch:
        made.append(Watch(board.folder, name, clock=clock))
        return made[-1]

    yield watch
    for each in made:
        each.close()


def test_a_rule_holds_when_post_returns_and_until_it_is_removed(board: Board, watch: Callable[[str], Watch]) -> None:
    broker, partition = watch("broker 1"), watch("partition orders-0")
    assert broker.mail_to("partition orders-0") == []
    drop, crash = board.post(DROP), board.post(CRASH)
    assert broker.mail_to("partition orders-0") == [drop]
    assert broker.mail_to("partition other-0") == broker.mail_to("coordinator") == []
    assert broker.own(Crash) == partition.own(DiskError) == []
    assert partition.mail_to("broker 1") == []  # one way
    assert partition.own(Crash) == [crash]
    assert watch("partition orders-0").own(Crash) == [crash]  # who starts later sees it, too
    assert board.remove([drop.id, 99]) == [drop.id]
    assert broker.mail_to("partition orders-0") == []
    assert partition.own(Crash) == [crash]


def test_hits_are_limited_over_all_processes_together(board: Board, watch: Callable[[str], Watch]) -> None:
    posted = board.post(ApiFault(api="PRODUCE", close=True, skip=2, times=3))
    one, two = watch("broker 1"), watch("broker 2")
    assert [each.hits(posted) for each in (one, two) * 4] == [False, False, True, True, True, False, False, False]
    assert board.hits(posted) == 3
    again = watch("broker 1")  # after a restart
    assert not again.hits(posted)
    assert board.hits(posted) == 3


def test_processes_that_hit_at_once_do_not_count_twice(board: Board) -> None:
    posted = board.post(ApiFault(api="PRODUCE", close=True, times=500))
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    workers = [context.Process(target=_hit, args=(board.folder, results)) for _ in range(3)]
    for worker in workers:
        worker.start()
    assert sum(results.get() for _ in workers) == 500
    for worker in workers:
        worker.join()
    assert board.hits(posted) == 500


def _hit(folder: Path, results: multiprocessing.SimpleQueue[int]) -> None:
    watch = Watch(folder, "broker 1")
    (posted,) = watch.own(ApiFault)
    results.put(sum(watch.hits(posted) for _ in range(400)))


def test_a_rule_ends_with_its_time(board: Board, watch: Callable[[str], Watch], clock: Clock) -> None:
    posted = board.post(ApiFault(api="PRODUCE", close=True, for_s=2.0))
    one = watch("broker 1")
    clock.now_s += 1.9
    board.sweep()
    assert one.hits(posted)
    clock.now_s += 0.1
    assert not one.hits(posted)
    board.sweep()
    assert board.posted == {}
    assert one.own(ApiFault) == []


def test_choices_by_probability_come_from_the_seed(board: Board, watch: Callable[[str], Watch]) -> None:
    def choices(seed: int, name: str = "broker 1") -> list[bool]:
        posted = board.post(ApiFault(api="PRODUCE", close=True, probability=0.3, seed=seed))
        one = watch(name)
        return [one.hits(posted) for _ in range(200)]

    first = choices(5)
    assert 30 < sum(first) < 90
    assert choices(5) == first
    assert choices(6) != first
    assert choices(5, "broker 2") != first
    assert sum(choices(7, "broker 3")) == board.hits(board.posted[5])


def test_a_removed_rule_no_longer_counts(board: Board, watch: Callable[[str], Watch]) -> None:
    """One that a process has read and looks at when it is just being removed."""
    posted = board.post(ApiFault(api="PRODUCE", close=True))
    one = watch("broker 1")
    assert one.own(ApiFault) == [posted]
    board.remove([posted.id])
    assert not one.hits(posted)
