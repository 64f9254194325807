"""Which leader wrote what. The cases are those of Kafka's LeaderEpochFileCacheTest."""

from __future__ import annotations

import pytest

from zafka.storage.leader_epochs import LeaderEpochs

UNDEFINED = (-1, -1)


def test_nothing_is_known_at_first() -> None:
    epochs = LeaderEpochs()
    assert epochs.latest == -1
    assert epochs.entries == []
    assert epochs.epoch_for(0) == -1
    assert epochs.end_offset_for(0, 10) == UNDEFINED


def test_epochs_are_added_as_leaders_come() -> None:
    epochs = LeaderEpochs([(2, 0), (3, 10), (7, 12)])
    assert epochs.latest == 7
    assert epochs.entries == [(2, 0), (3, 10), (7, 12)]
    assert [epochs.epoch_for(offset) for offset in (0, 9, 10, 11, 12, 99)] == [2, 2, 3, 3, 7, 7]


def test_same_epoch_again_changes_nothing() -> None:
    epochs = LeaderEpochs([(2, 5)])
    epochs.assign(2, 9)
    assert epochs.entries == [(2, 5)]


def test_same_epoch_further_back_moves_it() -> None:
    epochs = LeaderEpochs([(1, 2), (2, 9)])
    epochs.assign(2, 5)
    assert epochs.entries == [(1, 2), (2, 5)]


def test_epoch_that_wrote_nothing_is_forgotten() -> None:
    """A partition that restarts a thousand times without a record keeps one entry."""
    epochs = LeaderEpochs([(1, 0)])
    for epoch in range(2, 1000):
        epochs.assign(epoch, 50)
    assert epochs.entries == [(1, 0), (999, 50)]


def test_overwritten_epochs_are_forgotten() -> None:
    epochs = LeaderEpochs([(1, 0), (2, 10), (3, 20), (4, 30)])
    epochs.assign(5, 15)
    assert epochs.entries == [(1, 0), (2, 10), (5, 15)]


def test_an_epoch_ends_where_the_next_one_begins() -> None:
    epochs = LeaderEpochs([(2, 5), (4, 10), (7, 20)])
    assert epochs.end_offset_for(2, 30) == (2, 10)
    assert epochs.end_offset_for(4, 30) == (4, 20)
    assert epochs.end_offset_for(7, 30) == (7, 30)


def test_an_epoch_between_two_is_answered_with_the_one_before() -> None:
    epochs = LeaderEpochs([(2, 5), (4, 10), (7, 20)])
    assert epochs.end_offset_for(3, 30) == (2, 10)
    assert epochs.end_offset_for(6, 30) == (4, 20)


def test_an_epoch_older_than_all_ends_where_the_log_begins() -> None:
    assert LeaderEpochs([(5, 11), (6, 12)]).end_offset_for(4, 30) == (4, 11)


@pytest.mark.parametrize("epoch", [-1, 8, 99])
def test_an_epoch_newer_than_all_is_undefined(epoch: int) -> None:
    assert LeaderEpochs([(2, 5), (7, 20)]).end_offset_for(epoch, 30) == UNDEFINED


@pytest.mark.parametrize(
    ("start_offset", "left"),
    [
        (0, [(2, 5), (4, 10)]),
        (5, [(2, 5), (4, 10)]),
        (8, [(2, 8), (4, 10)]),
        (10, [(4, 10)]),
        (15, [(4, 15)]),
    ],
)
def test_cut_at_the_start(start_offset: int, left: list[tuple[int, int]]) -> None:
    epochs = LeaderEpochs([(2, 5), (4, 10)])
    epochs.truncate_start(start_offset)
    assert epochs.entries == left
