"""ListTransactions: none, there are no transactions yet. Filters are checked as Kafka does.

Versions 0-2. Version 1 filters by duration (KIP-994), 2 by a pattern of the transactional id (KIP-1152); Kafka takes
RE2's patterns, here it is Python's that tell what is none.
Source: TransactionStateManager.listTransactionStates; KIP-664.
"""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING

from zafka.actors.gateway.connection import Exchange
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages.list_transactions import ListTransactionsRequest, ListTransactionsResponse

if TYPE_CHECKING:
    from zafka.actors.gateway.gateway import Gateway

KEY = ApiKey.LIST_TRANSACTIONS
VERSIONS = range(3)
ADVERTISED = VERSIONS

STATES = frozenset((
    "Empty", "Ongoing", "PrepareCommit", "PrepareAbort", "CompleteCommit", "CompleteAbort", "Dead",
    "PrepareEpochFence"))
PATTERN_MAX = 1000  # so that looking at it costs little


def handle(gateway: Gateway, exchange: Exchange, request: ListTransactionsRequest) -> None:
    pattern = request.transactional_id_pattern or ""
    if not is_pattern(pattern):
        exchange.answer(ListTransactionsResponse(error_code=ErrorCode.INVALID_REGULAR_EXPRESSION))
        return
    unknown = list(dict.fromkeys(state for state in request.state_filters if state not in STATES))
    exchange.answer(ListTransactionsResponse(unknown_state_filters=unknown))


def is_pattern(text: str) -> bool:
    if len(text) > PATTERN_MAX:
        return False
    try:
        with warnings.catch_warnings(action="ignore"):
            re.compile(text)
    except (re.error, RecursionError, OverflowError):
        return False
    return True
