"""What a consumer says of its group: the arguments, checked.

Owns: `group_options`. Pure. Raises ConfigError.
"""

from __future__ import annotations

from collections.abc import Iterable

from zafka.client.assignors import ASSIGNORS
from zafka.client.core import check_choice, check_seconds
from zafka.client.errors import ConfigError
from zafka.client.group import GroupOptions


def group_options(
    group_id: str,
    *,
    instance_id: str | None,
    strategies: str | Iterable[str],
    session_timeout: float,
    heartbeat_interval: float,
    max_poll_interval: float,
    request_timeout: float,
) -> GroupOptions:
    if not isinstance(group_id, str) or not group_id:
        raise ConfigError(f"group_id must be a name such as 'billing', not {group_id!r}")
    if instance_id is not None and (not isinstance(instance_id, str) or not instance_id):
        raise ConfigError(f"group_instance_id must be a name such as 'billing-1', not {instance_id!r}")
    names = (strategies,) if isinstance(strategies, str) else tuple(strategies)
    if not names:
        raise ConfigError("partition_assignment_strategy needs at least one name")
    for name in names:
        check_choice("partition_assignment_strategy", name, ASSIGNORS)
    if check_seconds("heartbeat_interval", heartbeat_interval) >= check_seconds("session_timeout", session_timeout):
        raise ConfigError(
            f"heartbeat_interval={heartbeat_interval:g} must be below session_timeout={session_timeout:g}, "
            f"best a third of it: a member that is not heard of for that long is put out of its group")
    check_seconds("max_poll_interval", max_poll_interval)
    return GroupOptions(
        group_id, instance_id, names, session_timeout, heartbeat_interval, max_poll_interval, request_timeout)
