"""The judge judged: what differs is found where it is, and a table that says too much is as wrong as one that says too little."""

from __future__ import annotations

from tests.differential.compare import Difference, differences
from tests.differential.table import Entry, Verdict

OURS = {"error_code": "NONE", "topics": [{"name": "a", "partitions": [{"partition_index": 0, "offset": 5}]}]}


def found(version: int, *, api: str = "Fetch", ours: str = "1", kafka: str = "2") -> Difference:
    return Difference(api, version, "a case", "topics.offset", "topics[a].offset", ours, kafka)


def test_what_differs_is_named_with_its_place() -> None:
    theirs = {"error_code": "NONE", "topics": [
        {"name": "b", "partitions": []}, {"name": "a", "partitions": [{"partition_index": 0, "offset": 6}]}]}
    assert list(differences(OURS, theirs)) == [
        ("topics.partitions.offset", "topics[a].partitions[0].offset", "5", "6"),
        ("topics", "topics[b]", "(missing)", "{'name': 'b', 'partitions': []}")]
    assert list(differences(OURS, OURS)) == []
    ((field, *_),) = differences(OURS, "connection closed")
    assert field == "(answer)"


def test_null_and_empty_are_not_the_same() -> None:
    assert list(differences({"records": None}, {"records": []})) == [("records", "records", "None", "[]")]


def test_the_order_is_compared_where_names_are_the_same() -> None:
    (only,) = differences([{"name": "a"}, {"name": "b"}], [{"name": "b"}, {"name": "a"}])
    assert only[0].endswith("(order)")


def test_elements_that_names_do_not_tell_apart_are_compared_by_place() -> None:
    twice = [{"name": "a", "offset": 1}, {"name": "a", "offset": 2}]
    assert list(differences(twice, twice[::-1])) == [
        ("offset", "[0].offset", "1", "2"), ("offset", "[1].offset", "2", "1")]


def test_an_entry_covers_what_it_says_in_just_its_versions() -> None:
    entry = Entry("Fetch", "4..6", "topics.*", "1", "*", "because")
    verdict = Verdict([found(4), found(6)], [entry])
    assert not verdict.unexplained and not verdict.not_needed
    assert Verdict([found(4), found(6), found(7)], [entry]).unexplained == [found(7)]
    assert Verdict([found(4), found(6, ours="3")], [entry]).unexplained == [found(6, ours="3")]
    assert Verdict([found(4), found(6, api="Produce")], [entry]).unexplained == [found(6, api="Produce")]
    assert Verdict([found(4), found(5)], [entry]).not_needed  # 6 is not seen any more
    assert Verdict([], [entry]).not_needed


def test_an_entry_that_another_one_makes_superfluous_is_not_needed() -> None:
    wide, narrow = Entry("*", "4", "*", "*", "*", "all"), Entry("Fetch", "4", "topics.offset", "1", "2", "one")
    assert len(Verdict([found(4)], [wide, narrow]).not_needed) == 1
