"""What a consumer says of its group: the arguments, checked.

Owns: `group_options`, and which protocol follows from them. Pure. Raises ConfigError.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from zafka.client.assignors import ASSIGNORS
from zafka.client.core import check_choice, check_seconds
from zafka.client.errors import ConfigError
from zafka.client.group import CLASSIC, CONSUMER, GroupOptions

PROTOCOLS = (CONSUMER, CLASSIC)
REMOTE_ASSIGNORS = ("uniform", "range")


def group_options(
    group_id: str,
    *,
    protocol: str | None,
    remote_assignor: str | None,
    instance_id: str | None,
    strategies: str | Iterable[str] | None,
    session_timeout: float | None,
    heartbeat_interval: float | None,
    max_poll_interval: float,
    request_timeout: float,
    rack: str | None = None,
) -> GroupOptions:
    """What is None was not given."""
    check_name("group_id", group_id, "billing")
    if instance_id is not None:
        check_name("group_instance_id", instance_id, "billing-1")
    classic_only = {
        "partition_assignment_strategy": strategies, "session_timeout": session_timeout,
        "heartbeat_interval": heartbeat_interval}
    protocol = _choose_protocol(protocol, remote_assignor, instance_id, classic_only)
    known = GroupOptions(group_id)
    session_s = known.session_timeout if session_timeout is None else check_seconds("session_timeout", session_timeout)
    interval_s = known.heartbeat_interval
    if heartbeat_interval is not None:
        interval_s = check_seconds("heartbeat_interval", heartbeat_interval)
    if interval_s >= session_s:
        raise ConfigError(
            f"heartbeat_interval={interval_s:g} must be below session_timeout={session_s:g}, "
            f"best a third of it: a member that is not heard of for that long is put out of its group")
    return GroupOptions(
        group_id, instance_id, _check_strategies(strategies, known.strategies), session_s, interval_s,
        check_seconds("max_poll_interval", max_poll_interval), request_timeout, protocol, remote_assignor, rack)


def _choose_protocol(
    protocol: str | None, remote_assignor: str | None, instance_id: str | None, classic_only: Mapping[str, Any]
) -> str | None:
    """None: KIP-848's if the group's broker takes such a member."""
    if protocol is not None:
        check_choice("group_protocol", protocol, PROTOCOLS)
    given = [name for name, value in classic_only.items() if value is not None]
    if remote_assignor is not None:
        check_choice("group_remote_assignor", remote_assignor, REMOTE_ASSIGNORS)
        if protocol == CLASSIC or given:
            raise ConfigError(
                f"group_remote_assignor={remote_assignor!r} is for group_protocol='consumer', where the broker shares; "
                f"{given[0] if given else 'group_protocol'} is for 'classic', where members do")
        return CONSUMER
    if protocol == CONSUMER and given:
        raise ConfigError(
            f"{given[0]} is for group_protocol='classic': in 'consumer' the broker says it (for all groups, or for one with "
            f"its consumer.* configuration), and group_remote_assignor how to share")
    # A static member that crashed comes back at once in the classic protocol; in the other its name has to be free first.
    if protocol is None and (given or instance_id is not None):
        return CLASSIC
    return protocol


def check_name(argument: str, name: object, example: str) -> None:
    if not isinstance(name, str) or not name:
        raise ConfigError(f"{argument} must be a name such as {example!r}, not {name!r}")


def _check_strategies(strategies: str | Iterable[str] | None, default: tuple[str, ...]) -> tuple[str, ...]:
    if strategies is None:
        return default
    names = (strategies,) if isinstance(strategies, str) else tuple(strategies)
    if not names:
        raise ConfigError("partition_assignment_strategy needs at least one name")
    for name in names:
        check_choice("partition_assignment_strategy", name, ASSIGNORS)
    return names
