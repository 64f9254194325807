"""What a change makes of a topic's configuration."""

from __future__ import annotations

import pytest

from zafka.actors.config_rules import decide_config
from zafka.actors.dynamic_config import APPEND, DELETE, SET, SUBTRACT
from zafka.actors.messages import ConfigChange, ConfigOperation
from zafka.actors.refused import Refused
from zafka.transport.kafka.errors import ErrorCode

CURRENT = {"retention.ms": "1000", "segment.ms": "2000"}


def change(*operations: tuple[int, str, str | None], replace: bool = False) -> ConfigChange:
    return ConfigChange(2, "t", [ConfigOperation(*each) for each in operations], replace)


@pytest.mark.parametrize(("changed", "config"), [
    (change(), CURRENT),
    (change((SET, "retention.ms", "7")), {"retention.ms": "7", "segment.ms": "2000"}),
    (change((SET, "fsync", "os"), (DELETE, "segment.ms", None)), {"retention.ms": "1000", "fsync": "os"}),
    (change((DELETE, "fsync", None), (DELETE, "no.such", "x")), CURRENT),
    (change((SET, "fsync", "os"), replace=True), {"fsync": "os"}),
    (change(replace=True), {}),
    (change((SUBTRACT, "cleanup.policy", "delete")), {**CURRENT, "cleanup.policy": ""}),
    (change((APPEND, "cleanup.policy", "delete")), {**CURRENT, "cleanup.policy": "delete"}),
    (change((SET, "cleanup.policy", ""), (APPEND, "cleanup.policy", "delete")), {**CURRENT, "cleanup.policy": "delete"}),
])
def test_a_change_says_what_holds_afterwards(changed: ConfigChange, config: dict[str, str]) -> None:
    assert decide_config(changed, CURRENT) == config
    assert CURRENT == {"retention.ms": "1000", "segment.ms": "2000"}


@pytest.mark.parametrize(("changed", "error", "told"), [
    (change((SET, "no.such", "1")), ErrorCode.INVALID_CONFIG, "no.such: there is no such"),
    (change((SET, "retention.ms", "x")), ErrorCode.INVALID_CONFIG, "whole number, not 'x'"),
    (change((APPEND, "retention.ms", "1")), ErrorCode.INVALID_CONFIG, "Can't APPEND to key retention.ms because its type"),
    (change((SUBTRACT, "no.such", "1")), ErrorCode.INVALID_CONFIG, "Can't SUBTRACT to key no.such"),
    (change((4, "retention.ms", "1")), ErrorCode.INVALID_REQUEST, "Unknown operation type 4"),
])
def test_a_change_that_cannot_be_is_refused(changed: ConfigChange, error: ErrorCode, told: str) -> None:
    with pytest.raises(Refused, match=told) as refused:
        decide_config(changed, CURRENT)
    assert refused.value.error == error
