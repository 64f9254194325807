"""Where an injected error stands in the answers about leaders, places, the quorum, quotas, credentials and ACLs, and to SASL.

Owns: `FORMS`, the part of `api_errors.py` for the APIs that administrators of a whole cluster use.
"""

from __future__ import annotations

from typing import Any

from zafka.runtime.faults.forms import MESSAGE, Form, Topics
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.messages import (
    alter_client_quotas,
    alter_partition_reassignments,
    alter_user_scram_credentials,
    create_acls,
    delete_acls,
    describe_acls,
    describe_client_quotas,
    describe_quorum,
    describe_user_scram_credentials,
    elect_leaders,
    list_partition_reassignments,
    sasl_authenticate,
    sasl_handshake,
    update_features,
)


def _whole(response: type[Any], **rest: Any) -> Form:
    """An answer with one error for all of it."""
    return Form(whole=lambda request, version, error: response(error_code=error, error_message=MESSAGE, **rest))


def _elect(topic: elect_leaders.TopicPartitions, error: int) -> elect_leaders.ReplicaElectionResult:
    return elect_leaders.ReplicaElectionResult(topic.topic, [
        elect_leaders.PartitionResult(index, error, MESSAGE) for index in topic.partitions])


def _reassign(
    topic: alter_partition_reassignments.ReassignableTopic, error: int
) -> alter_partition_reassignments.ReassignableTopicResponse:
    return alter_partition_reassignments.ReassignableTopicResponse(topic.name, [
        alter_partition_reassignments.ReassignablePartitionResponse(each.partition_index, error, MESSAGE)
        for each in topic.partitions])


def _alter_quotas(request: Any, version: int, error: int) -> Any:
    return alter_client_quotas.AlterClientQuotasResponse(entries=[
        alter_client_quotas.EntryDataResponse(error, MESSAGE, entry.entity) for entry in request.entries])


def _alter_credentials(request: Any, version: int, error: int) -> Any:
    users = dict.fromkeys(each.name for each in [*request.deletions, *request.upsertions])
    return alter_user_scram_credentials.AlterUserScramCredentialsResponse(results=[
        alter_user_scram_credentials.AlterUserScramCredentialsResult(user, error, MESSAGE) for user in users])


FORMS: dict[int, Form] = {
    ApiKey.DESCRIBE_ACLS: _whole(describe_acls.DescribeAclsResponse),
    ApiKey.CREATE_ACLS: Form(whole=lambda request, version, error: create_acls.CreateAclsResponse(
        results=[create_acls.AclCreationResult(error, MESSAGE) for _ in request.creations])),
    ApiKey.DELETE_ACLS: Form(whole=lambda request, version, error: delete_acls.DeleteAclsResponse(
        filter_results=[delete_acls.DeleteAclsFilterResult(error, MESSAGE) for _ in request.filters])),
    ApiKey.ELECT_LEADERS: Form(Topics(
        ("topic_partitions",), "replica_election_results", lambda entry, _: str(entry.topic), _elect,
        elect_leaders.ElectLeadersResponse)),
    ApiKey.ALTER_PARTITION_REASSIGNMENTS: Form(Topics(
        ("topics",), "responses", lambda entry, _: str(entry.name), _reassign,
        alter_partition_reassignments.AlterPartitionReassignmentsResponse)),
    ApiKey.LIST_PARTITION_REASSIGNMENTS: _whole(list_partition_reassignments.ListPartitionReassignmentsResponse),
    ApiKey.DESCRIBE_QUORUM: _whole(describe_quorum.DescribeQuorumResponse),
    ApiKey.DESCRIBE_CLIENT_QUOTAS: _whole(describe_client_quotas.DescribeClientQuotasResponse, entries=None),
    ApiKey.ALTER_CLIENT_QUOTAS: Form(whole=_alter_quotas),
    ApiKey.DESCRIBE_USER_SCRAM_CREDENTIALS: _whole(
        describe_user_scram_credentials.DescribeUserScramCredentialsResponse),
    ApiKey.ALTER_USER_SCRAM_CREDENTIALS: Form(whole=_alter_credentials),
    ApiKey.SASL_HANDSHAKE: Form(whole=lambda request, version, error: sasl_handshake.SaslHandshakeResponse(error)),
    ApiKey.SASL_AUTHENTICATE: _whole(sasl_authenticate.SaslAuthenticateResponse),
    ApiKey.UPDATE_FEATURES: _whole(update_features.UpdateFeaturesResponse),
}
