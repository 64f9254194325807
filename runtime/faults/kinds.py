"""What can go wrong on request: the words of `zafka chaos`, of fault plans and of `zafka.Broker`, as structs.

Owns: names, fields and their limits. A fault either happens once, now, to whole processes (`Kill`, `Pause`, `Resume`),
or is a rule that stays in force in every process that it concerns until it is used up, over, or cleared (`Rule`).
Actors are named as in `zafka status`, by glob patterns ("partition orders-*"). Knows no process.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any

import msgspec
from msgspec import Struct

from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode

FOR_S_MAX = 86400.0
DELAY_MS_MAX = 3_600_000
TIMES_MAX = 1_000_000

DROP, DELAY, DUPLICATE, REORDER = "drop", "delay", "duplicate", "reorder"
MAIL_FAULTS = (DROP, DELAY, DUPLICATE, REORDER)

DISK_ERRORS = {
    "ENOSPC": "no room: writing, and making files, fails",
    "SHORT": "a write stops half-way, then there is no room",
    "EIO": "reading, writing and flushing fail",
    "EIO-READ": "reading fails",
    "EIO-WRITE": "writing fails",
    "FSYNC": "flushing fails, of files and of directories",
    "FLIP": "one bit of what is read is wrong",
    "SLOW": "a flush takes `delay_ms` longer",
}


class Fault(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="fault"):
    """Root of all faults."""


class Kill(Fault, frozen=True, kw_only=True, tag="kill"):
    """Send a signal, SIGKILL by default, to every process that `target` names."""

    target: str
    signal: int = int(signal.SIGKILL)


class Pause(Fault, frozen=True, kw_only=True, tag="pause"):
    """Stop every process that `target` names (SIGSTOP). for_s: continue it after this long; None: not by itself.

    One that is silent for longer than `supervision.hung_after` counts as hung, and is killed and restarted."""

    target: str
    for_s: float | None = None


class Resume(Fault, frozen=True, kw_only=True, tag="resume"):
    """Continue what was paused."""

    target: str


class Clear(Fault, frozen=True, kw_only=True, tag="clear"):
    """Lift rules, and continue what was paused. ids: of the rules; None: all of them, and all that is paused."""

    ids: tuple[int, ...] | None = None


class Rule(Fault, frozen=True, kw_only=True):
    """What all rules have.

    probability: of each match to be hit. skip: of those, so many pass unharmed first. times: hits after which it is
        used up, over all processes and their restarts together; None: no limit.
    for_s: how long it is in force; None: until it is cleared. seed: of the choices by probability.
    """

    probability: float = 1.0
    skip: int = 0
    times: int | None = None
    for_s: float | None = None
    seed: int = 0


class MailFault(Rule, frozen=True, kw_only=True, tag="mail"):
    """Mail from `sender` to `receiver`, in this direction only, is lost, late, doubled or overtaken.

    delay_ms, jitter_ms: for "delay"; what comes behind waits too, so the order stays.
    """

    what: str
    sender: str
    receiver: str
    delay_ms: float = 0.0
    jitter_ms: float = 0.0


class DiskError(Rule, frozen=True, kw_only=True, tag="disk"):
    """The disk fails `target`: `error` is one of DISK_ERRORS. path_glob: "*.log", or with folders "orders-0/*.log"."""

    target: str
    error: str
    path_glob: str = "*"
    delay_ms: float = 0.0


class Crash(Rule, frozen=True, kw_only=True, tag="crash"):
    """A process that `target` names ends, as by SIGKILL, when it passes `point` (`runtime/faults/points.py`)."""

    target: str
    point: str
    times: int | None = 1


class ApiFault(Rule, frozen=True, kw_only=True, tag="api"):
    """Requests for `api` at the brokers that `target` names are answered with `error`, or late, or not at all.

    topic: glob; only requests that name such a topic, and in them only those topics. None: all.
    Exactly one of: error: a Kafka error by name; the work is not done. delay_ms: the work is done at once and the
        answer held back. close: the connection is closed in place of an answer, and the work is not done.
    """

    api: str
    target: str = "broker *"
    topic: str | None = None
    error: str | None = None
    delay_ms: float = 0.0
    close: bool = False


AnyRule = MailFault | DiskError | Crash | ApiFault
AnyFault = Kill | Pause | Resume | Clear | MailFault | DiskError | Crash | ApiFault


class FaultError(ValueError):
    """A fault that makes no sense. The message is for whoever asked for it, and names what would."""


def decode_fault(data: Any) -> AnyFault:
    """A fault from what JSON or YAML made of it. Raises FaultError."""
    try:
        fault: AnyFault = msgspec.convert(data, AnyFault)
    except msgspec.ValidationError as error:
        raise FaultError(f"not a fault: {error}") from None
    check_fault(fault)
    return fault


def check_fault(fault: AnyFault) -> None:
    """Raises FaultError if there is no such fault, whatever runs."""
    if isinstance(fault, Rule):
        _check_rule(fault)
    match fault:
        case Kill():
            if fault.signal not in {int(each) for each in signal.Signals}:
                raise FaultError(f"there is no signal {fault.signal}")
        case Pause(for_s=float(for_s)):
            _check_range("for", for_s, 0.001, FOR_S_MAX)
        case MailFault():
            _check_word("a fault of mail", fault.what, MAIL_FAULTS)
            _check_range("delay", fault.delay_ms, 0, DELAY_MS_MAX)
            _check_range("jitter", fault.jitter_ms, 0, DELAY_MS_MAX)
            if (fault.what == DELAY) != bool(fault.delay_ms or fault.jitter_ms):
                raise FaultError(f"{DELAY} needs a delay, and nothing else does")
        case DiskError():
            _check_word("an error of disks", fault.error, tuple(DISK_ERRORS))
            _check_range("delay", fault.delay_ms, 0, DELAY_MS_MAX)
            if (fault.error == "SLOW") != bool(fault.delay_ms):
                raise FaultError("SLOW needs a delay, and nothing else does")
        case Crash():
            from zafka.runtime.faults.points import POINTS

            _check_word("a point to crash at", fault.point, tuple(POINTS))
        case ApiFault():
            _check_api(fault)


def _check_rule(rule: Rule) -> None:
    _check_range("probability", rule.probability, 0, 1)
    _check_range("skip", rule.skip, 0, TIMES_MAX)
    if rule.times is not None:
        _check_range("times", rule.times, 1, TIMES_MAX)
    if rule.for_s is not None:
        _check_range("for", rule.for_s, 0.001, FOR_S_MAX)


def _check_api(fault: ApiFault) -> None:
    from zafka.runtime.faults.api_errors import FORMS

    _check_range("delay", fault.delay_ms, 0, DELAY_MS_MAX)
    names = tuple(ApiKey(key).name for key in FORMS)
    _check_word("an API of this broker", fault.api, names)
    if (fault.error is not None) + bool(fault.delay_ms) + fault.close != 1:
        raise FaultError("say one of: an error, a delay, or that the connection is closed")
    if fault.error is not None:
        _check_word("an error of Kafka", fault.error, [code.name for code in ErrorCode if code])
    if fault.topic is not None and FORMS[ApiKey[fault.api]].topics is None:
        with_topics = ", ".join(ApiKey(key).name for key, form in FORMS.items() if form.topics is not None)
        raise FaultError(f"requests for {fault.api} name no topic; those that do: {with_topics}")


def _check_range(what: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise FaultError(f"{what} must be {low:g} to {high:g}, not {value:g}")


def _check_word(what: str, word: str, known: Sequence[str]) -> None:
    if word not in known:
        from zafka.runtime.yaml_file import did_you_mean

        near = did_you_mean(word.upper() if known[0].isupper() else word, known)
        raise FaultError(f"{word!r} is not {what}{near or '; there are: ' + ', '.join(known)}")


def described(fault: AnyFault) -> dict[str, Any]:
    """What a fault says beyond the defaults, for people and for JSON."""
    fields = msgspec.structs.fields(fault)
    told = {field.name: getattr(fault, field.name) for field in fields}
    return {field.name: told[field.name] for field in fields if field.required or told[field.name] != field.default}


def matching(pattern: str, names: Iterable[str]) -> list[str]:
    """The names that a glob pattern means, sorted."""
    return sorted(name for name in names if fnmatchcase(name, pattern))


def targets_of(pattern: str, names: Sequence[str]) -> list[str]:
    """As `matching`; raises FaultError with the names that there are if it means nobody."""
    found = matching(pattern, names)
    if not found:
        from zafka.runtime.yaml_file import did_you_mean

        kind = "no actor matches" if any(letter in pattern for letter in "*?[") else "there is no actor"
        near = did_you_mean(pattern, names)
        raise FaultError(f"{kind} {pattern!r}{near}{' There' if near else '; there'} are: {', '.join(names)}")
    return found
