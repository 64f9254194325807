"""Offsets of partitions by time, or their first and last, in steps: asked of the leaders until all have said.

Owns: nothing. Raises BrokerRefused, RequestTimedOut.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from zafka.client.core import Core
from zafka.client.errors import BrokerRefused, RequestTimedOut, error_name, is_retriable
from zafka.client.offsets import list_offsets_request, read_offsets
from zafka.client.records import OffsetAndTimestamp, TopicPartition
from zafka.transport.kafka.api_keys import ApiKey

RETRY_S = 0.05


async def list_offsets(
    core: Core, wanted: Mapping[TopicPartition, int], limit_s: float
) -> dict[TopicPartition, OffsetAndTimestamp]:
    """Ask the leaders, again and again for those that cannot say yet."""
    deadline_s = time.monotonic() + limit_s
    cluster = core.cluster
    results: dict[TopicPartition, OffsetAndTimestamp] = {}
    problem = "no leader"
    while len(results) < len(wanted):
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            raise RequestTimedOut(
                f"offsets of {len(wanted) - len(results)} partitions not known after {limit_s:g} s: {problem}"
            )
        by_leader: dict[int, dict[TopicPartition, int]] = {}
        for where, timestamp in wanted.items():
            if where not in results and (leader := cluster.leader(*where)) >= 0:
                by_leader.setdefault(leader, {})[where] = timestamp
        answers = [
            core.begin_ask(leader, ApiKey.LIST_OFFSETS, list_offsets_request(part), left_s)
            for leader, part in by_leader.items()
        ]
        for answer in await core.await_all(answers, left_s):
            found, errors = read_offsets(answer)
            results |= found
            for where, code in errors.items():
                problem = error_name(code)
                if not is_retriable(code):
                    raise BrokerRefused(f"no offsets of {where.topic}-{where.partition}", code)
        if len(results) < len(wanted):
            core.io.call(cluster.refresh_soon)
            await core.sleep(RETRY_S)
    return {where: results[where] for where in wanted}
