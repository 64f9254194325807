"""What a supervisor decides, on a clock that the test moves. Scenarios after OTP's "Supervision Principles"."""

from __future__ import annotations

from collections import deque

import pytest

from zafka.runtime.supervisor import (
    Backoff,
    ChildSpec,
    Decisions,
    Ended,
    Kill,
    Removed,
    RestartLimit,
    Start,
    State,
    Stop,
    Supervisor,
    allow_restart,
    backoff_s,
)

CRASH = 70


def specs(*names: str, **options: object) -> list[ChildSpec]:
    return [ChildSpec(name, **options) for name in names]  # type: ignore[arg-type]


def running(*names: str, now_s: float = 0.0, weather_codes: frozenset[int] = frozenset(), **options: object) -> Supervisor:
    """A supervisor whose children are all ready."""
    supervisor = Supervisor("test", specs(*names, weather_codes=weather_codes), **options)  # type: ignore[arg-type]
    supervisor.start(now_s)
    for name in names:
        make_ready(supervisor, name, now_s)
    return supervisor


def make_ready(supervisor: Supervisor, name: str, now_s: float) -> None:
    assert supervisor.on_spawned(name, now_s) == []
    supervisor.on_ready(name, now_s)


def shown(decisions: Decisions) -> list[str]:
    """Decisions as short text: "start a", "stop b", ..."""
    return [
        f"start {decision.spec.id}" if isinstance(decision, Start)
        else f"{type(decision).__name__.lower()} {'' if isinstance(decision, Ended) else decision.id}".strip()
        for decision in decisions
    ]


def test_children_start_in_order() -> None:
    assert shown(Supervisor("test", specs("a", "b", "c")).start(0.0)) == ["start a", "start b", "start c"]


def test_the_weather_does_not_count_but_waits() -> None:
    supervisor = running("a", limit=RestartLimit(1, 60.0), weather_codes=frozenset({72}))
    for turn in range(10):
        now_s = 10.0 * turn
        decisions = supervisor.on_exit("a", 72, "mail was lost", now_s)
        decisions += supervisor.tick(now_s + 6.0)
        assert shown(decisions) == ["start a"]
        make_ready(supervisor, "a", now_s + 9.5)
    assert supervisor.children["a"].attempts == 10
    supervisor.on_exit("a", 1, "crash", 99.6)
    assert shown(supervisor.on_exit("a", 1, "crash", 99.6)) == ["ended"]


# -- restart types -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("restart", "code", "expected"),
    [
        ("permanent", 0, ["start a"]),
        ("permanent", CRASH, ["start a"]),
        ("transient", 0, ["removed a"]),
        ("transient", -9, ["start a"]),
        ("temporary", 0, ["removed a"]),
        ("temporary", CRASH, ["removed a"]),
    ],
)
def test_restart_types(restart: str, code: int, expected: list[str]) -> None:
    supervisor = Supervisor("test", specs("a", restart=restart))
    supervisor.start(0.0)
    make_ready(supervisor, "a", 0.0)
    assert shown(supervisor.on_exit("a", code, "", 10.0)) == expected


def test_exit_code_that_restarting_cannot_help_escalates_at_once() -> None:
    supervisor = Supervisor("test", [ChildSpec("a", fatal_codes=frozenset({74})), ChildSpec("b")])
    supervisor.start(0.0)
    make_ready(supervisor, "a", 0.0)
    make_ready(supervisor, "b", 0.0)
    assert shown(supervisor.on_exit("a", 74, "disk", 9.0)) == ["stop b"]
    assert supervisor.on_exit("b", 0, "", 9.1) == [Ended(True, "a: disk", 74)]


# -- backoff and intensity -----------------------------------------------------------------------


def test_first_restart_is_immediate_then_backoff_doubles_up_to_its_maximum() -> None:
    backoff = Backoff(0.02, 0.1)
    assert [backoff_s(attempts, backoff, 1.0) for attempts in range(6)] == [0.0, 0.02, 0.04, 0.08, 0.1, 0.1]
    assert backoff_s(1, backoff, 0.0) == pytest.approx(0.01)
    assert backoff_s(10**6, backoff, 1.0) == 0.1


def test_backoff_starts_afresh_after_five_seconds_of_being_ready() -> None:
    supervisor = running("a", random=lambda: 1.0)
    assert shown(supervisor.on_exit("a", -9, "", 0.5)) == ["start a"]
    make_ready(supervisor, "a", 3.5)
    assert supervisor.on_exit("a", -9, "", 4.0) == []
    assert supervisor.wakeup_s() == pytest.approx(4.02)
    assert supervisor.tick(4.01) == []
    assert shown(supervisor.tick(4.02)) == ["start a"]
    make_ready(supervisor, "a", 4.1)
    assert shown(supervisor.on_exit("a", -9, "", 9.2)) == ["start a"]
    make_ready(supervisor, "a", 9.2)
    assert shown(supervisor.on_exit("a", -9, "", 9.3)) == ["start a"]
    assert supervisor.children["a"].restarts == 4


def test_kills_from_outside_are_weather() -> None:
    """However often an actor dies, if it was ready for a second before, nobody escalates and it is back at once."""
    supervisor = running("a", limit=RestartLimit(2, 60.0))
    now_s = 0.0
    for _ in range(50):
        now_s += 1.5
        assert shown(supervisor.on_exit("a", -9, "", now_s)) == ["start a"]
        make_ready(supervisor, "a", now_s)


def test_crash_loop_escalates() -> None:
    supervisor = Supervisor("test", specs("a", "b"), limit=RestartLimit(2, 60.0))
    supervisor.start(0.0)
    make_ready(supervisor, "b", 0.0)
    now_s = 0.0
    for _ in range(2):
        supervisor.on_spawned("a", now_s)
        decisions = supervisor.on_exit("a", CRASH, "bug", now_s)
        if not decisions:
            now_s = supervisor.wakeup_s()
            decisions = supervisor.tick(now_s)
        assert shown(decisions) == ["start a"]
    supervisor.on_spawned("a", now_s)
    assert shown(supervisor.on_exit("a", CRASH, "bug", now_s)) == ["stop b"]
    ended = supervisor.on_exit("b", 0, "", now_s)
    assert ended == [Ended(
        True, "more than 2 crashes within 60 s: a (3 times); the last, of a: bug", CRASH)]


def test_the_last_word_names_those_who_crashed_most() -> None:
    names = ("a", "b", "c", "d", "e")
    supervisor = Supervisor("test", specs(*names), limit=RestartLimit(6, 60.0), backoff=Backoff(0.001, 0.001))
    supervisor.start(0.0)
    for at_s, name in enumerate("bbbacde", 1):
        supervisor.tick(float(at_s))
        assert supervisor.crashes(float(at_s)) == at_s - 1
        supervisor.on_exit(name, CRASH, f"bug of {name}", float(at_s))
    assert supervisor.ending == (
        "more than 6 crashes within 60 s: b (3 times), a (1 times), c (1 times) and 2 others; the last, of e: bug of e")
    assert supervisor.crashes(66.5) == 1


def test_crashes_are_forgotten_after_the_period() -> None:
    times: deque[float] = deque()
    limit = RestartLimit(2, 10.0)
    assert [allow_restart(times, now_s, limit) for now_s in (0.0, 1.0, 2.0)] == [True, True, False]
    assert allow_restart(times, 12.1, limit)


def test_nested_supervisor_that_gave_up_is_restarted_by_its_own_supervisor() -> None:
    supervisor = Supervisor(
        "root", [ChildSpec("coordinator"), ChildSpec("below", kind="supervisor")], limit=RestartLimit(1, 60.0)
    )
    supervisor.start(0.0)
    make_ready(supervisor, "coordinator", 0.0)
    assert shown(supervisor.on_exit("below", 1, "gave up", 100.0)) == ["start below"]
    assert shown(supervisor.on_exit("below", 1, "gave up", 120.0)) == ["stop coordinator"]


# -- strategies ----------------------------------------------------------------------------------


def test_one_for_one_leaves_the_others_alone() -> None:
    assert shown(running("a", "b", "c").on_exit("b", -9, "", 9.0)) == ["start b"]


def test_one_for_all_stops_in_reverse_order_and_starts_all() -> None:
    supervisor = running("a", "b", "c", strategy="one_for_all")
    assert shown(supervisor.on_exit("b", -9, "", 9.0)) == ["stop c"]
    assert shown(supervisor.on_exit("c", 0, "", 9.1)) == ["stop a"]
    assert shown(supervisor.on_exit("a", 0, "", 9.2)) == ["start a", "start b", "start c"]


def test_rest_for_one_restarts_those_started_after() -> None:
    supervisor = running("a", "b", "c", strategy="rest_for_one")
    assert shown(supervisor.on_exit("b", -9, "", 9.0)) == ["stop c"]
    assert shown(supervisor.on_exit("c", 0, "", 9.1)) == ["start b", "start c"]


def test_second_death_while_the_first_group_stops() -> None:
    supervisor = running("a", "b", "c", strategy="rest_for_one")
    assert shown(supervisor.on_exit("b", -9, "", 9.0)) == ["stop c"]
    assert shown(supervisor.on_exit("a", -9, "", 9.1)) == []
    assert shown(supervisor.on_exit("c", 0, "", 9.2)) == ["start a", "start b", "start c"]


# -- hung children -------------------------------------------------------------------------------


def beat(supervisor: Supervisor, *names: str, until_s: float, from_s: float = 0.0) -> Decisions:
    """Tick every half second; only `names` send heartbeats."""
    decisions: Decisions = []
    now_s = from_s
    while now_s < until_s:
        now_s += 0.5
        for name in names:
            supervisor.on_heartbeat(name, now_s)
        decisions += supervisor.tick(now_s)
    return decisions


def test_child_without_heartbeat_is_killed_once_and_restarted() -> None:
    supervisor = running("a", "b", hung_after_s=10.0)
    assert shown(beat(supervisor, "b", until_s=10.0)) == []
    assert shown(beat(supervisor, "b", from_s=10.0, until_s=15.0)) == ["kill a"]
    assert shown(supervisor.on_exit("a", -9, "hung", 15.0)) == ["start a"]


def test_who_waits_for_the_disk_is_not_hung_until_it_is_silent_without_that() -> None:
    supervisor = running("a", "b", hung_after_s=10.0)
    now_s = 0.0
    while now_s < 60.0:
        now_s += 0.5
        supervisor.on_heartbeat("b", now_s)
        assert supervisor.silent(now_s) in ([], ["a"])
        for name in supervisor.silent(now_s):
            supervisor.on_disk_wait(name, now_s)
        assert supervisor.tick(now_s) == []
    assert supervisor.children["a"].shown_state == "waits for the disk"
    assert shown(beat(supervisor, "b", from_s=60.0, until_s=72.0)) == ["kill a"]
    supervisor.on_exit("a", -9, "hung", 72.0)
    assert supervisor.children["a"].shown_state == "starting"


def test_only_those_that_are_silent_for_half_the_time_are_looked_at() -> None:
    supervisor = running("a", "b", hung_after_s=10.0)
    beat(supervisor, "b", until_s=5.0)
    assert supervisor.silent(5.0) == []
    assert supervisor.silent(5.5) == ["a"]


def test_recovery_that_sends_progress_is_not_hung() -> None:
    supervisor = Supervisor("test", specs("a"), hung_after_s=10.0)
    supervisor.start(0.0)
    supervisor.on_spawned("a", 0.0)
    assert beat(supervisor, "a", until_s=120.0) == []
    assert supervisor.children["a"].state is State.RECOVERING


def test_silence_is_forgiven_when_we_did_not_run_ourselves() -> None:
    supervisor = running("a", hung_after_s=10.0)
    beat(supervisor, "a", until_s=5.0)
    assert supervisor.tick(60.0) == []
    assert shown(beat(supervisor, from_s=60.0, until_s=71.0)) == ["kill a"]


# -- dynamic children ----------------------------------------------------------------------------


def partition(name: str) -> ChildSpec:
    return ChildSpec(name, dynamic=True)


def test_start_child_twice_changes_nothing() -> None:
    supervisor = running("broker")
    assert shown(supervisor.start_child(partition("p"), 1.0)) == ["start p"]
    assert supervisor.start_child(partition("p"), 1.0) == []


def test_terminate_child_stops_kills_and_removes() -> None:
    supervisor = running("broker")
    supervisor.start_child(partition("p"), 1.0)
    make_ready(supervisor, "p", 1.0)
    assert shown(supervisor.terminate_child("p", 2.0)) == ["stop p"]
    assert supervisor.tick(2.5) == []
    assert shown(supervisor.tick(3.0)) == ["kill p"]
    assert supervisor.tick(9.0) == []
    assert supervisor.on_exit("p", -9, "", 9.1) == [Removed("p")]
    assert supervisor.terminate_child("p", 9.2) == [Removed("p")]


def test_child_stopped_while_it_starts_is_killed_when_its_process_is_there() -> None:
    supervisor = running("broker")
    supervisor.start_child(partition("p"), 1.0)
    assert supervisor.terminate_child("p", 1.0) == []
    assert shown(supervisor.on_spawned("p", 1.1)) == ["kill p"]


def test_topic_deleted_and_created_again_never_has_two_processes() -> None:
    supervisor = running("broker")
    supervisor.start_child(partition("p"), 1.0)
    make_ready(supervisor, "p", 1.0)
    supervisor.terminate_child("p", 2.0)
    assert supervisor.start_child(partition("p"), 2.0) == []
    assert shown(supervisor.on_exit("p", 0, "", 2.1)) == ["removed p", "start p"]


def test_waiting_child_is_removed_at_once() -> None:
    supervisor = running("broker")
    supervisor.start_child(partition("p"), 1.0)
    supervisor.on_exit("p", CRASH, "", 1.1)
    supervisor.on_exit("p", CRASH, "", 1.2)
    assert supervisor.children["p"].state is State.WAITING
    assert shown(supervisor.terminate_child("p", 1.2)) == ["removed p"]


# -- the end -------------------------------------------------------------------------------------


def test_shutdown_stops_static_children_in_reverse_order_then_dynamic_ones_together() -> None:
    supervisor = running("first", "broker")
    for name in ("p", "q"):
        supervisor.start_child(partition(name), 1.0)
        make_ready(supervisor, name, 1.0)
    assert shown(supervisor.shutdown(2.0)) == ["stop broker"]
    assert shown(supervisor.on_exit("broker", 0, "", 2.1)) == ["stop first"]
    assert shown(supervisor.on_exit("first", 0, "", 2.2)) == ["stop q", "stop p"]
    assert supervisor.on_exit("p", 0, "", 2.3) == []
    assert shown(supervisor.on_exit("q", 0, "", 2.3)) == ["ended"]


def test_shutdown_kills_what_is_not_ready_and_what_does_not_stop() -> None:
    supervisor = Supervisor("test", specs("a", "b", "c"))
    supervisor.start(0.0)
    make_ready(supervisor, "a", 0.0)
    supervisor.on_spawned("b", 0.0)
    assert supervisor.shutdown(1.0) == []  # c has no process yet
    assert supervisor.on_spawned("c", 1.0) == [Kill("c", "stopped while it started")]
    assert supervisor.on_exit("c", -9, "", 1.0) == [Kill("b", "stopped before it was ready")]
    assert supervisor.on_exit("b", -9, "", 1.1) == [Stop("a")]
    assert shown(supervisor.tick(2.1)) == ["kill a"]
    assert supervisor.on_exit("a", -9, "", 2.2) == [Ended(False, "shutdown", 0)]


def test_one_that_is_killed_as_hung_is_neither_asked_to_stop_nor_killed_again() -> None:
    supervisor = Supervisor("test", specs("a", "b"), hung_after_s=10.0)
    supervisor.start(0.0)
    make_ready(supervisor, "a", 0.0)
    supervisor.on_spawned("b", 0.0)
    assert shown(beat(supervisor, until_s=11.0)) == ["kill a", "kill b"]
    assert supervisor.shutdown(11.0) == []
    assert supervisor.on_exit("b", -9, "hung", 11.1) == []
    assert shown(supervisor.on_exit("a", -9, "hung", 11.2)) == ["ended"]


def test_nothing_starts_while_it_ends() -> None:
    supervisor = running("a", "b")
    supervisor.on_exit("a", -9, "", 0.5)
    make_ready(supervisor, "a", 2.5)
    supervisor.on_exit("a", -9, "", 3.0)  # waits for its backoff
    assert shown(supervisor.shutdown(3.0)) == ["stop b"]
    assert supervisor.start_child(partition("p"), 3.0) == []
    assert supervisor.tick(9.0) == [Kill("b", "did not stop within 1 s")]
    assert shown(supervisor.on_exit("b", -9, "", 9.0)) == ["ended"]
