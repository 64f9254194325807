"""Kafka's API keys, and from which version on each API is "flexible" (KIP-482: compact lengths, tagged fields).

Owns what must be known of a request before its layout is: a header of an API or version that we do not serve is still
read, so that it can be refused by name. Source: Apache Kafka 4.3, ApiKeys; checked in tests/unit/test_kafka_schema.py.
"""

from __future__ import annotations

from enum import IntEnum


class ApiKey(IntEnum):
    """First two bytes of a request. The lower-case name is the API's file in `schema/` and module in `messages/`."""

    PRODUCE = 0
    FETCH = 1
    LIST_OFFSETS = 2
    METADATA = 3
    OFFSET_COMMIT = 8
    OFFSET_FETCH = 9
    FIND_COORDINATOR = 10
    JOIN_GROUP = 11
    HEARTBEAT = 12
    LEAVE_GROUP = 13
    SYNC_GROUP = 14
    DESCRIBE_GROUPS = 15
    LIST_GROUPS = 16
    SASL_HANDSHAKE = 17
    API_VERSIONS = 18
    CREATE_TOPICS = 19
    DELETE_TOPICS = 20
    DELETE_RECORDS = 21
    INIT_PRODUCER_ID = 22
    OFFSET_FOR_LEADER_EPOCH = 23
    ADD_PARTITIONS_TO_TXN = 24
    ADD_OFFSETS_TO_TXN = 25
    END_TXN = 26
    WRITE_TXN_MARKERS = 27
    TXN_OFFSET_COMMIT = 28
    DESCRIBE_ACLS = 29
    CREATE_ACLS = 30
    DELETE_ACLS = 31
    DESCRIBE_CONFIGS = 32
    ALTER_CONFIGS = 33
    ALTER_REPLICA_LOG_DIRS = 34
    DESCRIBE_LOG_DIRS = 35
    SASL_AUTHENTICATE = 36
    CREATE_PARTITIONS = 37
    CREATE_DELEGATION_TOKEN = 38
    RENEW_DELEGATION_TOKEN = 39
    EXPIRE_DELEGATION_TOKEN = 40
    DESCRIBE_DELEGATION_TOKEN = 41
    DELETE_GROUPS = 42
    ELECT_LEADERS = 43
    INCREMENTAL_ALTER_CONFIGS = 44
    ALTER_PARTITION_REASSIGNMENTS = 45
    LIST_PARTITION_REASSIGNMENTS = 46
    OFFSET_DELETE = 47
    DESCRIBE_CLIENT_QUOTAS = 48
    ALTER_CLIENT_QUOTAS = 49
    DESCRIBE_USER_SCRAM_CREDENTIALS = 50
    ALTER_USER_SCRAM_CREDENTIALS = 51
    VOTE = 52
    BEGIN_QUORUM_EPOCH = 53
    END_QUORUM_EPOCH = 54
    DESCRIBE_QUORUM = 55
    ALTER_PARTITION = 56
    UPDATE_FEATURES = 57
    ENVELOPE = 58
    FETCH_SNAPSHOT = 59
    DESCRIBE_CLUSTER = 60
    DESCRIBE_PRODUCERS = 61
    BROKER_REGISTRATION = 62
    BROKER_HEARTBEAT = 63
    UNREGISTER_BROKER = 64
    DESCRIBE_TRANSACTIONS = 65
    LIST_TRANSACTIONS = 66
    ALLOCATE_PRODUCER_IDS = 67
    CONSUMER_GROUP_HEARTBEAT = 68
    CONSUMER_GROUP_DESCRIBE = 69
    CONTROLLER_REGISTRATION = 70
    GET_TELEMETRY_SUBSCRIPTIONS = 71
    PUSH_TELEMETRY = 72
    ASSIGN_REPLICAS_TO_DIRS = 73
    LIST_CONFIG_RESOURCES = 74
    DESCRIBE_TOPIC_PARTITIONS = 75
    SHARE_GROUP_HEARTBEAT = 76
    SHARE_GROUP_DESCRIBE = 77
    SHARE_FETCH = 78
    SHARE_ACKNOWLEDGE = 79
    ADD_RAFT_VOTER = 80
    REMOVE_RAFT_VOTER = 81
    UPDATE_RAFT_VOTER = 82
    INITIALIZE_SHARE_GROUP_STATE = 83
    READ_SHARE_GROUP_STATE = 84
    WRITE_SHARE_GROUP_STATE = 85
    DELETE_SHARE_GROUP_STATE = 86
    READ_SHARE_GROUP_STATE_SUMMARY = 87
    STREAMS_GROUP_HEARTBEAT = 88
    STREAMS_GROUP_DESCRIBE = 89
    DESCRIBE_SHARE_GROUP_OFFSETS = 90
    ALTER_SHARE_GROUP_OFFSETS = 91
    DELETE_SHARE_GROUP_OFFSETS = 92


_NEVER = 1 << 15
# One number for each key; requests and answers change together. Gaps (4-7: once internal, gone since Kafka 4.0) never.
_FLEXIBLE_SINCE = (
    9, 12, 6, 9, _NEVER, _NEVER, _NEVER, _NEVER, 8, 6,  # 0-9
    3, 6, 4, 4, 4, 5, 3, _NEVER, 3, 5,  # 10-19
    4, 2, 2, 4, 3, 3, 3, 1, 3, 2,  # 20-29
    2, 2, 4, 2, 2, 2, 2, 2, 2, 2,  # 30-39
    2, 2, 2, 2, 1, 0, 0, _NEVER, 1, 1,  # 40-49
    0, 0, 0, 1, 1, 0, 2, 0, 0, 0,  # 50-59
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0,  # 60-69
    0, 0, 0, 0, 0, 0, 1, 1, 1, 1,  # 70-79
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0,  # 80-89
    0, 0, 0,  # 90-92
)  # fmt: skip


def is_flexible(api_key: int, version: int) -> bool:
    """True if this version has tagged fields. False for an API key that no Kafka has."""
    return 0 <= api_key < len(_FLEXIBLE_SINCE) and version >= _FLEXIBLE_SINCE[api_key]
