"""Which APIs this broker serves, in which versions, by which code: the one place that knows.

Owns: `APIS`. Each API's file says its `KEY`, its `VERSIONS` and, where they differ, what is `ADVERTISED`.
Readers and writers are compiled when a version is used first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from zafka.actors.gateway import (
    alter_client_quotas,
    alter_configs,
    alter_partition_reassignments,
    alter_user_scram_credentials,
    api_versions,
    consumer_group_describe,
    consumer_group_heartbeat,
    create_acls,
    create_partitions,
    create_topics,
    delete_acls,
    delete_groups,
    delete_records,
    delete_topics,
    describe_acls,
    describe_client_quotas,
    describe_cluster,
    describe_configs,
    describe_groups,
    describe_log_dirs,
    describe_producers,
    describe_quorum,
    describe_topic_partitions,
    describe_transactions,
    describe_user_scram_credentials,
    elect_leaders,
    fetch,
    find_coordinator,
    heartbeat,
    incremental_alter_configs,
    init_producer_id,
    join_group,
    leave_group,
    list_config_resources,
    list_groups,
    list_offsets,
    list_partition_reassignments,
    list_transactions,
    metadata,
    offset_commit,
    offset_delete,
    offset_fetch,
    offset_for_leader_epoch,
    produce,
    sasl_authenticate,
    sasl_handshake,
    sync_group,
    update_features,
)
from zafka.actors.gateway.connection import Exchange
from zafka.transport.kafka.codec import request_reader, response_writer
from zafka.transport.kafka.types import Buffer

if TYPE_CHECKING:
    from zafka.actors.gateway.gateway import Gateway

Handler = Callable[["Gateway", Exchange, Any], None]


class Api(NamedTuple):
    """versions: served. advertised: told to clients, which may be more (see produce.py)."""

    key: int
    versions: range
    advertised: range
    handle: Handler


class Served(NamedTuple):
    """One API in one version."""

    read: Callable[[memoryview, int], Any]
    write: Callable[[Any], Sequence[Buffer]]
    handle: Handler


APIS: dict[int, Api] = {
    module.KEY: Api(module.KEY, module.VERSIONS, module.ADVERTISED, module.handle)
    for module in (
        produce, fetch, list_offsets, metadata, find_coordinator, api_versions, create_topics, delete_topics,
        init_producer_id, offset_for_leader_epoch, describe_configs, create_partitions, delete_records,
        describe_topic_partitions, describe_cluster, describe_log_dirs, list_config_resources, describe_producers,
        describe_transactions, list_transactions, alter_configs, incremental_alter_configs, describe_acls,
        create_acls, delete_acls, elect_leaders, alter_partition_reassignments, list_partition_reassignments, describe_quorum,
        describe_client_quotas, alter_client_quotas, describe_user_scram_credentials, alter_user_scram_credentials,
        offset_commit, offset_fetch, offset_delete, list_groups, describe_groups, delete_groups, join_group, sync_group,
        heartbeat, leave_group, consumer_group_heartbeat, consumer_group_describe,
        update_features, sasl_handshake, sasl_authenticate)
}


@cache
def served(api_key: int, version: int) -> Served | None:
    """How to serve a request, None if it is not served."""
    api = APIS.get(api_key)
    if api is None or version not in api.versions:
        return None
    return Served(request_reader(api_key, version), response_writer(api_key, version), api.handle)
