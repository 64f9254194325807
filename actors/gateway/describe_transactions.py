"""DescribeTransactions: what is known of transactional ids. Nobody has one: there are no transactions yet.

Version 0. Kafka says NOT_COORDINATOR where it does not know an id's coordinator, TRANSACTIONAL_ID_NOT_FOUND where it
is one and knows nothing of the id, which is so for every id here.
Source: TransactionCoordinator.handleDescribeTransactions; KIP-664.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zafka.actors.gateway.connection import Exchange
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages.describe_transactions import (
    DescribeTransactionsRequest,
    DescribeTransactionsResponse,
    TransactionState,
)

if TYPE_CHECKING:
    from zafka.actors.gateway.gateway import Gateway

KEY = ApiKey.DESCRIBE_TRANSACTIONS
VERSIONS = range(1)
ADVERTISED = VERSIONS


def handle(gateway: Gateway, exchange: Exchange, request: DescribeTransactionsRequest) -> None:
    exchange.answer(DescribeTransactionsResponse(transaction_states=[
        TransactionState(
            error_code=ErrorCode.TRANSACTIONAL_ID_NOT_FOUND if name else ErrorCode.INVALID_REQUEST,
            transactional_id=name)
        for name in request.transactional_ids]))
