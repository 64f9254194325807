"""Expressions of subscriptions match as RE2's do, and nobody is held up by one that is hostile."""

from __future__ import annotations

import random
import re

import pytest

from zafka.actors.groups.topic_regex import ALPHABET, STEPS_MAX, InvalidRegex, TopicRegex

NAMES = ["orders", "orders-1", "Orders", "a.b", "__consumer_offsets", "x", "xx", "xxx-7", "aaa", "a", "B_2"]

ALIKE = [
    "orders.*", "(?i)orders", "[a-z]+", r"\w+", r"\W+", r"[^-]+", "a{2,3}", "a{3}", "a{2,}", "(a|x)+", r".*-\d", "^orders$",
    r"\Aorders\b.*", r"\bx{2}\b.*", r"x\B.*", "x(?:x|)x?-?[0-9]*", "", "(?i:o)rders(-1)?", "(?P<name>a)+", r"[\w.]+",
    r"\x61{3}", "a*?", "a+?", "a{1,2}?", r"[\]a]+", "[]a]+", r"\.|x", "|x", "(?s).+", "[a-]+", "[-.a-b]+", r"[^\W\d]+",
    r"(?i)[b-c]_\d", "o(?i)R(?-i:d)ers", r"\141+", "x|", "((x)|(a))+",
]  # fmt: skip


@pytest.mark.parametrize("pattern", ALIKE)
def test_what_python_understands_in_the_same_way(pattern: str) -> None:
    # Python has flags only at the beginning or for a group.
    theirs = "o(?i:R(?-i:d)ers)" if pattern.startswith("o(?i)") else pattern.replace(r"\A", "")
    assert TopicRegex(pattern).matching(NAMES) == {name for name in NAMES if re.fullmatch(theirs, name)}


@pytest.mark.parametrize(("pattern", "names"), [
    (r"\Qa.b\E", {"a.b"}), (r"\Qa.", set()), (r"x+\z", {"x", "xx"}), ("[[:alpha:]]+", {"orders", "Orders", "x", "xx", "aaa", "a"}),
    ("[[:^alpha:]_]+", set()), (r"\pL+", {"orders", "Orders", "x", "xx", "aaa", "a"}), (r"\p{Lu}\p{Ll}+", {"Orders"}),
    (r"\P{L}+", set()), ("(?<name>a)", {"a"}), ("(?U)a+", {"aaa", "a"}), ("x{,2}", set()), ("a{b}", set()), (r"\x{61}", {"a"}),
    ("ü", set()), (r"\_\_.*", {"__consumer_offsets"}), (r"B_[\d]", {"B_2"}), ("(?mi)^b_2$", {"B_2"}),
])  # fmt: skip
def test_what_is_re2s_own(pattern: str, names: set[str]) -> None:
    assert TopicRegex(pattern).matching(NAMES) == names


@pytest.mark.parametrize(("pattern", "reason"), [
    ("(", "missing closing )"), (")", "unexpected )"), ("(?i", "missing closing )"), ("[a", "missing closing ]"), ("[", "missing closing ]"),
    ("[z-a]", "invalid character class range"), ("[[:foo:]]", "invalid character class range"),
    (r"\p{Greek}", "invalid character class range"), ("a**", "invalid nested repetition operator"),
    ("a+{2}", "invalid nested repetition operator"), ("*a", "missing argument to repetition operator"),
    ("a|*", "missing argument to repetition operator"), ("(?=a)", "invalid or unsupported Perl syntax"),
    ("(?!a)", "invalid or unsupported Perl syntax"), ("(?<=a)b", "invalid or unsupported Perl syntax"),
    ("(?>a)", "invalid or unsupported Perl syntax"), (r"(a)\1", "invalid escape sequence"), (r"\y", "invalid escape sequence"),
    (r"\xzz", "invalid escape sequence"), ("a{2,1}", "invalid repeat count"), ("a{1001}", "invalid repeat count"),
    ("\\", "trailing backslash at end of expression"), ("(?P<>a)", "invalid named capture"), ("(?P<a-b>a)", "invalid named capture"),
    ("(" * 101 + ")" * 101, "expression nests too deeply"), ("(a{1000}){1000}", "expression too large"),
    ("((){1000}){1000}", "expression too large"), ("a" * 5001, "longer than 5000 characters"),
])  # fmt: skip
def test_what_is_no_expression(pattern: str, reason: str) -> None:
    with pytest.raises(InvalidRegex) as refused:
        TopicRegex(pattern)
    assert str(refused.value) == reason


@pytest.mark.parametrize("pattern", [
    "(a+)+b", "(a|a)*c", "(a|aa)+$b", "(.*)(.*)(.*)(.*)(.*)[^a]", "(a?){200}a{200}", "(.*a){20}.",
    "(.{0,30}.{0,30}.{0,30}){5}", "((a{0,5}){0,5}){0,5}b",
])  # fmt: skip
def test_a_hostile_expression_takes_a_bounded_number_of_steps(pattern: str) -> None:
    rng = random.Random(7)
    names = ["a" * 249] + ["".join(rng.choice("ab") for _ in range(249)) for _ in range(200)]
    regex = TopicRegex(pattern)
    try:
        matching = regex.matching(names)
    except InvalidRegex as refused:
        assert str(refused) == "it takes too many steps"
    else:
        simple = {"(a?){200}a{200}": "a{200,400}", "(.*a){20}.": "(?:[^a]*a){20}.*", "(.*)(.*)(.*)(.*)(.*)[^a]": ".*[^a]"}
        if pattern in ("(a?){200}a{200}", "(.*)(.*)(.*)(.*)(.*)[^a]"):
            assert matching == {name for name in names if re.fullmatch(simple[pattern], name)}
    assert regex._steps <= STEPS_MAX + 2_100, "within one step of the bound"


def test_an_ordinary_expression_costs_little_for_many_topics() -> None:
    names = [f"team-{number % 40}.orders-{number}" for number in range(20_000)]
    regex = TopicRegex("team-.*orders-[0-9]+7")
    assert len(regex.matching(names)) == 1_999  # not orders-7: one digit more
    assert regex._steps < 5_000


@pytest.mark.parametrize("seed", range(20))
def test_random_expressions_match_what_pythons_do(seed: int) -> None:
    print(f"seed {seed}")
    rng = random.Random(seed)

    def expression(depth: int) -> str:
        kind = rng.randrange(9 if depth else 4)
        if kind < 4:
            return rng.choice(["a", "b", ".", "[ab]", "[^a]", r"\w", "-", r"\b", "^", "$"])
        if kind < 6:
            return expression(depth - 1) + expression(depth - 1)
        if kind == 6:
            return f"(?:{expression(depth - 1)}|{expression(depth - 1)})"
        return f"(?:{expression(depth - 1)}){rng.choice(['*', '+', '?', '{2}', '{1,3}', '{0,2}'])}"

    names = ["".join(rng.choice("ab-") for _ in range(rng.randrange(7))) for _ in range(60)]
    for _ in range(30):
        pattern = expression(4)
        expected = {name for name in names if re.fullmatch(pattern, name)}
        assert TopicRegex(pattern).matching(names) == expected, pattern
    assert all(char in ALPHABET for name in names for char in name)
