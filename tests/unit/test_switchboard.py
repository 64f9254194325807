"""The mailboxes of user-written actors, without processes: scenarios, and any order of events whatever."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from zafka.actors.user_messages import ANSWERED, DEADLOCK, FAILED, FULL, STOPPED, TAKEN
from zafka.runtime.switchboard import MAILBOX_BYTES_MAX, OWNER, Hand, Letter, Outputs, Resolve, Switchboard


def board(*names: str, letters_max: int = 3, up: bool = True) -> Switchboard:
    switchboard = Switchboard()
    for name in names:
        switchboard.add(name, letters_max=letters_max)
        if up:
            assert switchboard.on_up(name) == []
    return switchboard


def hands(outputs: Outputs) -> list[bytes]:
    return [output.letter.message for output in outputs if isinstance(output, Hand)]


def resolved(outputs: Outputs) -> list[tuple[int, int]]:
    return [(output.post, output.outcome) for output in outputs if isinstance(output, Resolve)]


def test_one_letter_is_in_hand_and_the_others_wait_in_their_order() -> None:
    switchboard = board("a")
    outputs = switchboard.on_post(OWNER, 1, "a", b"1", ask=False)
    assert (hands(outputs), resolved(outputs)) == ([b"1"], [(1, TAKEN)])
    assert hands(switchboard.on_post(OWNER, 2, "a", b"2", ask=True)) == []
    assert hands(switchboard.on_post(OWNER, 3, "a", b"3", ask=False)) == []
    outputs = switchboard.on_handled("a", 1, b"", last=False)
    assert (hands(outputs), resolved(outputs)) == ([b"2"], [])
    assert switchboard.on_handled("a", 2, b"answer", last=False)[0] == Resolve(OWNER, 2, ANSWERED, b"answer")


def test_only_the_letter_in_hand_is_lost_with_an_incarnation() -> None:
    switchboard = board("a")
    for post in (1, 2, 3):
        switchboard.on_post(OWNER, post, "a", b"%d" % post, ask=True)
    assert switchboard.on_down("a", "crash") == [Resolve(OWNER, 1, FAILED, b"crash")]
    assert hands(switchboard.on_up("a")) == [b"2"]


def test_a_full_mailbox_takes_no_more() -> None:
    switchboard = board("a", letters_max=2, up=False)
    for post in (1, 2):
        assert resolved(switchboard.on_post(OWNER, post, "a", b"", ask=False)) == [(post, TAKEN)]
    assert resolved(switchboard.on_post(OWNER, 3, "a", b"", ask=False)) == [(3, FULL)]
    assert resolved(switchboard.on_post(OWNER, 4, "a", b"", ask=True)) == [(4, FULL)]
    switchboard.on_up("a")
    assert resolved(switchboard.on_post(OWNER, 5, "a", bytes(MAILBOX_BYTES_MAX + 1), ask=False)) == [(5, FULL)]


def test_who_is_gone_answers_all_that_waits() -> None:
    switchboard = board("a")
    switchboard.on_post(OWNER, 1, "a", b"", ask=True)
    switchboard.on_post(OWNER, 2, "a", b"", ask=True)
    assert resolved(switchboard.remove("a", "gone")) == [(1, STOPPED), (2, STOPPED)]
    assert resolved(switchboard.on_post(OWNER, 3, "a", b"", ask=False)) == [(3, STOPPED)]


def test_an_actor_that_stops_gets_no_more() -> None:
    switchboard = board("a")
    switchboard.on_post(OWNER, 1, "a", b"1", ask=False)
    switchboard.on_post(OWNER, 2, "a", b"2", ask=False)
    assert switchboard.on_handled("a", 1, b"", last=True) == []
    switchboard.on_down("a", "")
    assert hands(switchboard.on_up("a")) == [b"2"]
    switchboard.on_handled("a", 2, b"", last=False)
    switchboard.on_stopping("a")
    assert hands(switchboard.on_post(OWNER, 3, "a", b"3", ask=False)) == []


def test_a_circle_of_asks_is_refused() -> None:
    switchboard = board("a", "b", "c")
    assert resolved(switchboard.on_post(("a", 1), 1, "a", b"", ask=True)) == [(1, DEADLOCK)]
    switchboard.on_post(("a", 1), 2, "b", b"", ask=True)
    switchboard.on_post(("b", 1), 1, "c", b"", ask=True)
    (refused,) = switchboard.on_post(("c", 1), 1, "a", b"", ask=True)
    assert refused == Resolve(("c", 1), 1, DEADLOCK, b"c waits for a waits for b waits for c")
    assert resolved(switchboard.on_post(("c", 1), 2, "a", b"", ask=False)) == [(2, TAKEN)]


@pytest.mark.parametrize("how", ["gave up", "died", "answered"])
def test_who_waits_no_more_may_be_asked(how: str) -> None:
    switchboard = board("a", "b")
    (hand,) = switchboard.on_post(("a", 1), 7, "b", b"", ask=True)
    assert isinstance(hand, Hand)
    match how:
        case "gave up":
            switchboard.on_gave_up("a", 7)
        case "died":
            switchboard.on_down("a", "")
        case "answered":
            switchboard.on_handled("b", hand.letter.number, b"", last=False)
    assert DEADLOCK not in dict(resolved(switchboard.on_post(("b", 1), 1, "a", b"", ask=True))).values()


class AnyOrder(RuleBasedStateMachine):
    """Posts, deaths, starts and stops in any order, with what must hold beside them."""

    NAMES = ("a", "b", "c")

    @initialize()
    def begin(self) -> None:
        self.board = board(*self.NAMES, letters_max=4, up=False)
        self.incarnation = dict.fromkeys(self.NAMES, 1)
        self.up: set[str] = set()
        self.there = set(self.NAMES)
        self.in_hand: dict[str, Letter] = {}
        self.posts = 0
        self.open: set[int] = set()
        self.outcomes: Counter[int] = Counter()
        self.handed: list[tuple[str, Letter]] = []

    def take(self, outputs: Outputs) -> None:
        for output in outputs:
            if isinstance(output, Hand):
                assert output.to in self.up, "handed to one that is not up"
                assert output.to not in self.in_hand, "a second one in hand"
                self.in_hand[output.to] = output.letter
                self.handed.append((output.to, output.letter))
            else:
                self.outcomes[output.post] += 1
                self.open.discard(output.post)

    @rule(sender=st.sampled_from(("", *NAMES)), to=st.sampled_from(NAMES), ask=st.booleans())
    def post(self, sender: str, to: str, ask: bool) -> None:
        if sender and sender not in self.in_hand:
            return  # actors write while they handle
        self.posts += 1
        self.open.add(self.posts)
        address = (sender, self.incarnation[sender]) if sender else OWNER
        self.take(self.board.on_post(address, self.posts, to, b"x", ask=ask))

    @rule(name=st.sampled_from(NAMES))
    def start(self, name: str) -> None:
        if name in self.there and name not in self.up:
            self.up.add(name)
            self.take(self.board.on_up(name))

    @rule(name=st.sampled_from(NAMES), last=st.booleans())
    def handle(self, name: str, last: bool) -> None:
        if name in self.in_hand:
            letter = self.in_hand.pop(name)
            self.take(self.board.on_handled(name, letter.number, b"", last=last))
            if last:
                self.die(name)

    @rule(name=st.sampled_from(NAMES))
    def die(self, name: str) -> None:
        if name in self.up:
            self.up.discard(name)
            self.in_hand.pop(name, None)
            self.incarnation[name] += 1
            self.take(self.board.on_down(name, "died"))

    @precondition(lambda self: self.posts > 10)
    @rule(name=st.sampled_from(NAMES))
    def remove(self, name: str) -> None:
        if name not in self.up and name in self.there:
            self.there.discard(name)
            self.take(self.board.remove(name, "gone"))

    @invariant()
    def nothing_is_handed_or_resolved_twice_and_order_holds(self) -> None:
        if not hasattr(self, "board"):
            return
        assert all(count == 1 for count in self.outcomes.values())
        numbers = [letter.number for _, letter in self.handed]
        assert len(set(numbers)) == len(numbers)
        for name in self.NAMES:
            of_one = [letter.number for to, letter in self.handed if to == name]
            assert of_one == sorted(of_one)

    def teardown(self) -> None:
        if hasattr(self, "board"):
            self.take(self.board.end("over"))
            assert self.open == set(), "somebody waits for ever"


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
