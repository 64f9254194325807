"""What `Admin` and `AsyncAdmin` share: all but the waiting.

Owns: the few requests of administration, one coroutine of steps (waiting.py) each, and their errors.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, NamedTuple

from zafka.client.addresses import Address
from zafka.client.admin_groups import GroupAdmin
from zafka.client.cluster import Target
from zafka.client.core import Core, check_count, check_seconds, make_settings
from zafka.client.deletion import delete_records_request, read_deleted
from zafka.client.errors import (
    BrokerRefused,
    ConfigError,
    ConnectionLost,
    RequestTimedOut,
    UnknownTopic,
    error_name,
    is_retriable,
)
from zafka.client.records import TopicPartition
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages import (
    CreatableReplicaAssignment,
    CreatableTopic,
    CreatableTopicConfig,
    CreatePartitionsAssignment,
    CreatePartitionsRequest,
    CreatePartitionsResponse,
    CreatePartitionsTopic,
    CreateTopicsRequest,
    CreateTopicsResponse,
    DeleteTopicsRequest,
    DeleteTopicsResponse,
    DescribeConfigsRequest,
    DescribeConfigsResource,
    DescribeConfigsResponse,
    IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
    MetadataRequest,
    MetadataRequestTopic,
    MetadataResponse,
)
from zafka.transport.kafka.messages.incremental_alter_configs import AlterableConfig, AlterConfigsResource

BY_BROKER_DEFAULT = -1
RESOURCE_TOPIC = 2
RESOURCE_BROKER = 4
RESOURCE_GROUP = 32
CONFIG_SET, CONFIG_DELETE = 0, 1  # operations of IncrementalAlterConfigs

RETRY_S = 0.05

Results = list[tuple[str, int, str | None]]  # topic, error code, message
Attempt = Callable[[list[str], float], Awaitable[Results]]  # topics, seconds

# Kafka's ConfigSource and ConfigType.
CONFIG_SOURCES = {1: "topic", 2: "broker dynamic", 3: "broker default dynamic", 4: "broker static", 5: "default", 8: "group"}
CONFIG_TYPES = ("unknown", "boolean", "string", "int", "short", "long", "double", "list", "class", "password")


class NewTopic(NamedTuple):
    """A topic to create. -1: what the brokers' num.partitions and default.replication.factor say.

    assignment: broker ids of each partition's replicas, instead of the two numbers."""

    name: str
    partitions: int = BY_BROKER_DEFAULT
    replication_factor: int = BY_BROKER_DEFAULT
    config: Mapping[str, str] = {}
    assignment: tuple[tuple[int, ...], ...] = ()


class PartitionInfo(NamedTuple):
    """leader: broker id, or -1. in_sync: the replicas that are."""

    partition: int
    leader: int
    leader_epoch: int
    replicas: tuple[int, ...]
    in_sync: tuple[int, ...]
    offline: tuple[int, ...]


class TopicInfo(NamedTuple):
    name: str
    topic_id: bytes
    is_internal: bool
    partitions: tuple[PartitionInfo, ...]


class BrokerInfo(NamedTuple):
    broker_id: int
    address: Address
    rack: str | None


class ClusterInfo(NamedTuple):
    cluster_id: str
    controller_id: int
    brokers: tuple[BrokerInfo, ...]


class ConfigEntry(NamedTuple):
    """source: "topic", "broker static", "default", ...; type: "int", "list", ..."""

    name: str
    value: str | None
    source: str
    type: str
    is_default: bool
    read_only: bool
    is_sensitive: bool
    documentation: str | None


class ConfigOwner(NamedTuple):
    """Whose configuration is meant: one of these. broker: an id, or "" for what all brokers have."""

    topic: str | None
    broker: int | str | None
    group: str | None

    def resource(self, what: str) -> tuple[int, str, Target | int]:
        """Its type, its name, and whom to ask. Raises ConfigError."""
        if sum(each is not None for each in self) != 1:
            raise ConfigError(f"{what} needs one of topic=, broker= and group=")
        if self.topic is not None:
            return RESOURCE_TOPIC, self.topic, Target.ANY
        if self.group is not None:
            return RESOURCE_GROUP, self.group, Target.ANY
        if isinstance(self.broker, str) and self.broker:
            raise ConfigError(f'broker= is a number, or "" for all brokers, not {self.broker!r}')
        return RESOURCE_BROKER, str(self.broker), self.broker if isinstance(self.broker, int) else Target.ANY


class AdminBase(GroupAdmin):
    """Create, list, describe, alter and delete topics and groups, at any broker.

    bootstrap_servers: one address or several; without it ZAFKA_BOOTSTRAP_ZMQ, ZAFKA_BOOTSTRAP or 127.0.0.1:9092.
    api_timeout: seconds for each method; request_timeout: for each of its attempts. client_id: how brokers' logs name this client.
    bootstrap_timeout: seconds until NoBroker if nobody answers at first; connect_timeout: for one connection.
    Raises NoBroker, ConfigError.
    """

    def __init__(
        self,
        bootstrap_servers: str | Iterable[str] | None = None,
        *,
        client_id: str = "zafka-admin",
        api_timeout: float = 30.0,
        request_timeout: float = 30.0,
        bootstrap_timeout: float = 3.0,
        connect_timeout: float = 10.0,
    ) -> None:
        self._timeout = check_seconds("api_timeout", api_timeout)
        settings = make_settings(
            bootstrap_servers,
            client_id=client_id,
            bootstrap_timeout=bootstrap_timeout,
            connect_timeout=connect_timeout,
            request_timeout=request_timeout,
        )
        self._core = Core("admin client", settings)
        self._begin()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {','.join(map(str, self._core.settings.bootstrap))}>"

    # -- topics ----------------------------------------------------------------------------------

    async def _create_topic(
        self, name: str, partitions: int, replication_factor: int, config: Mapping[str, Any] | None
    ) -> TopicInfo:
        config = {key: str(value) for key, value in (config or {}).items()}
        return (await self._create_topics([NewTopic(name, partitions, replication_factor, config)], False))[0]

    async def _create_topics(self, topics: Iterable[NewTopic], validate_only: bool) -> list[TopicInfo]:
        wanted = {topic.name: topic for topic in topics}

        async def attempt(names: list[str], timeout_s: float) -> Results:
            request = CreateTopicsRequest(
                topics=[_creatable(wanted[name]) for name in names],
                timeout_ms=int(timeout_s * 1000),
                validate_only=validate_only,
            )
            answer: CreateTopicsResponse = await self._core.ask(
                Target.CONTROLLER, ApiKey.CREATE_TOPICS, request, timeout_s, repeat=False
            )
            return [(result.name, result.error_code, result.error_message) for result in answer.topics]

        for name, code, detail in await self._until_certain(list(wanted), attempt, ErrorCode.TOPIC_ALREADY_EXISTS):
            raise BrokerRefused(f"topic {name!r} was not created", code, detail)
        if validate_only:
            return []
        names = list(wanted)
        await self._core.wait_for_topics(names, self._timeout, patience_s=self._timeout)  # they exist: somebody just lags
        await self._core.wait_for(lambda: self._all_led(names) or None, self._timeout, f"leaders of {', '.join(names)}")
        return await self._describe_topics(names)

    def _all_led(self, names: list[str]) -> bool:
        known = self._core.cluster.topics
        return all(name in known and min(known[name].leaders) >= 0 for name in names)

    async def _delete_topics(self, names: str | Iterable[str]) -> None:
        wanted = [names] if isinstance(names, str) else list(names)

        async def attempt(names: list[str], timeout_s: float) -> Results:
            request = DeleteTopicsRequest(topic_names=names, timeout_ms=int(timeout_s * 1000))
            answer: DeleteTopicsResponse = await self._core.ask(
                Target.CONTROLLER, ApiKey.DELETE_TOPICS, request, timeout_s, repeat=False
            )
            return [(result.name or "", result.error_code, result.error_message) for result in answer.responses]

        for name, code, detail in await self._until_certain(wanted, attempt, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION):
            if code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION:
                raise UnknownTopic(f"topic {name!r} does not exist")
            raise BrokerRefused(f"topic {name!r} was not deleted", code, detail)

    async def _until_certain(self, names: list[str], attempt: Attempt, done_code: int) -> Results:
        """Repeat a change while it fails in a way that passes; returns what failed for good.

        done_code: what a repeated attempt is told if the one before it, whose answer was lost, went through.
        """
        deadline_s = time.monotonic() + self._timeout
        uncertain: set[str] = set()
        while True:
            left_s = deadline_s - time.monotonic()
            try:
                # An attempt whose connection is dead, unnoticed, must not use up all the time.
                timeout_s = min(max(left_s, RETRY_S), self._core.settings.request_timeout)
                failed = [result for result in await attempt(names, timeout_s) if result[1]]
            except (ConnectionLost, RequestTimedOut):
                if left_s <= RETRY_S:
                    raise
                uncertain.update(names)
            else:
                failed = [result for result in failed if result[0] not in uncertain or result[1] != done_code]
                lasting = [result for result in failed if result[1] == done_code or not is_retriable(result[1])]
                if lasting or not failed or left_s <= RETRY_S:
                    return lasting or failed
                names = [name for name, _, _ in failed]
                uncertain.update(name for name, code, _ in failed if code == ErrorCode.REQUEST_TIMED_OUT)
            await self._core.sleep(RETRY_S)

    async def _describe_topics(self, names: str | Iterable[str]) -> list[TopicInfo]:
        wanted = [names] if isinstance(names, str) else list(names)
        request = MetadataRequest(
            topics=[MetadataRequestTopic(name=name) for name in wanted], allow_auto_topic_creation=False
        )
        answer: MetadataResponse = await self._core.ask(Target.ANY, ApiKey.METADATA, request, self._timeout)
        found = {topic.name: topic for topic in answer.topics}
        described = []
        for name in wanted:
            topic = found.get(name)
            if topic is None or topic.error_code in (
                ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
                ErrorCode.INVALID_TOPIC_EXCEPTION,
            ):
                raise UnknownTopic(f"topic {name!r} does not exist")
            if topic.error_code and not is_retriable(topic.error_code):
                raise BrokerRefused(f"topic {name!r}", topic.error_code)
            partitions = tuple(
                PartitionInfo(
                    part.partition_index,
                    part.leader_id,
                    part.leader_epoch,
                    tuple(part.replica_nodes),
                    tuple(part.isr_nodes),
                    tuple(part.offline_replicas),
                )
                for part in sorted(topic.partitions, key=lambda part: part.partition_index)
            )
            described.append(TopicInfo(name, topic.topic_id, topic.is_internal, partitions))
        return described

    def describe_cluster(self) -> ClusterInfo:
        """Brokers as this client reaches them, and the cluster's id."""
        cluster = self._core.cluster
        brokers = tuple(
            BrokerInfo(number, cluster.brokers[number], cluster.racks[number]) for number in sorted(cluster.brokers)
        )
        return ClusterInfo(cluster.cluster_id, cluster.controller_id, brokers)

    async def _describe_configs(self, owner: ConfigOwner, documentation: bool) -> list[ConfigEntry]:
        kind, name, target = owner.resource("describe_configs")
        resource = DescribeConfigsResource(resource_type=kind, resource_name=name, configuration_keys=None)
        request = DescribeConfigsRequest(
            resources=[resource], include_synonyms=False, include_documentation=documentation
        )
        answer: DescribeConfigsResponse = await self._core.ask(target, ApiKey.DESCRIBE_CONFIGS, request, self._timeout)
        result = answer.results[0]
        if result.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION:
            raise UnknownTopic(f"topic {name!r} does not exist")
        if result.error_code:
            raise BrokerRefused(f"the configuration of {name!r}", result.error_code, result.error_message)
        return [
            ConfigEntry(
                name=entry.name,
                value=entry.value,
                source=CONFIG_SOURCES.get(entry.config_source, "unknown"),
                type=CONFIG_TYPES[entry.config_type] if 0 <= entry.config_type < len(CONFIG_TYPES) else "unknown",
                is_default=entry.config_source == 5,
                read_only=entry.read_only,
                is_sensitive=entry.is_sensitive,
                documentation=entry.documentation,
            )
            for entry in sorted(result.configs, key=lambda entry: entry.name)
        ]

    async def _alter_config(self, owner: ConfigOwner, config: Mapping[str, Any] | None, validate_only: bool) -> None:
        kind, name, target = owner.resource("alter_config")
        if config is None:
            raise ConfigError("alter_config needs config=")
        operations = [
            AlterableConfig(key, CONFIG_DELETE if value is None else CONFIG_SET, None if value is None else str(value))
            for key, value in config.items()]
        request = IncrementalAlterConfigsRequest([AlterConfigsResource(kind, name, operations)], validate_only)

        async def attempt(names: list[str], timeout_s: float) -> Results:
            # Repeated without harm: it says what shall be, not what to add.
            answer: IncrementalAlterConfigsResponse = await self._core.ask(
                Target.CONTROLLER if target is Target.ANY else target, ApiKey.INCREMENTAL_ALTER_CONFIGS, request, timeout_s)
            if any(result.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION for result in answer.responses):
                raise UnknownTopic(f"topic {name!r} does not exist")
            return [(result.resource_name, result.error_code, result.error_message) for result in answer.responses]

        for _, code, detail in await self._until_certain([name], attempt, ErrorCode.NONE):
            raise BrokerRefused(f"the configuration of {name!r} was not altered", code, detail)

    # -- partitions and records ------------------------------------------------------------------

    async def _create_partitions(
        self, topic: str, partitions: int, assignment: Iterable[Iterable[int]] | None, validate_only: bool
    ) -> TopicInfo:
        check_count("partitions", partitions)
        chosen = None if assignment is None else [CreatePartitionsAssignment(list(replicas)) for replicas in assignment]

        async def attempt(names: list[str], timeout_s: float) -> Results:
            wanted = [CreatePartitionsTopic(name, partitions, chosen) for name in names]
            request = CreatePartitionsRequest(wanted, int(timeout_s * 1000), validate_only)
            answer: CreatePartitionsResponse = await self._core.ask(
                Target.CONTROLLER, ApiKey.CREATE_PARTITIONS, request, timeout_s, repeat=False
            )
            if any(result.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION for result in answer.results):
                raise UnknownTopic(f"topic {topic!r} does not exist")
            return [(result.name, result.error_code, result.error_message) for result in answer.results]

        for name, code, detail in await self._until_certain([topic], attempt, ErrorCode.INVALID_PARTITIONS):
            raise BrokerRefused(f"topic {name!r} was not given {partitions} partitions", code, detail)
        return (await self._describe_topics(topic))[0]

    async def _delete_records(self, offsets: Mapping[tuple[str, int], int]) -> dict[TopicPartition, int]:
        core = self._core
        wanted = {TopicPartition(*where): offset for where, offset in offsets.items()}
        await core.wait_for_topics({where.topic for where in wanted}, self._timeout)
        for where in wanted:
            if not 0 <= where.partition < len(core.cluster.topics[where.topic].leaders):
                raise UnknownTopic(f"topic {where.topic!r} has no partition {where.partition}")
        deadline_s = time.monotonic() + self._timeout
        done: dict[TopicPartition, int] = {}
        problem = "no leader"
        while len(done) < len(wanted):
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                raise RequestTimedOut(f"records of {len(wanted) - len(done)} partitions were not deleted: {problem}")
            by_leader: dict[int, dict[TopicPartition, int]] = {}
            for where, offset in wanted.items():
                if where not in done and (leader := core.cluster.leader(*where)) >= 0:
                    by_leader.setdefault(leader, {})[where] = offset
            answers = [
                core.begin_ask(leader, ApiKey.DELETE_RECORDS, delete_records_request(part, int(left_s * 1000)), left_s)
                for leader, part in by_leader.items()
            ]
            for answer in await core.await_all(answers, left_s):
                found, errors = read_deleted(answer)
                done |= found
                for where, code in errors.items():
                    problem = error_name(code)
                    if not is_retriable(code):
                        raise BrokerRefused(f"records of {where.topic}-{where.partition} were not deleted", code)
            if len(done) < len(wanted):
                core.io.call(core.cluster.refresh_soon)
                await core.sleep(RETRY_S)
        return {where: done[where] for where in wanted}


def _creatable(topic: NewTopic) -> CreatableTopic:
    if topic.partitions != BY_BROKER_DEFAULT:
        check_count("partitions", topic.partitions)
    if topic.replication_factor != BY_BROKER_DEFAULT:
        check_count("replication_factor", topic.replication_factor)
    return CreatableTopic(
        name=topic.name,
        num_partitions=BY_BROKER_DEFAULT if topic.assignment else topic.partitions,
        replication_factor=BY_BROKER_DEFAULT if topic.assignment else topic.replication_factor,
        assignments=[
            CreatableReplicaAssignment(partition_index=index, broker_ids=list(replicas))
            for index, replicas in enumerate(topic.assignment)
        ],
        configs=[CreatableTopicConfig(name=key, value=value) for key, value in topic.config.items()],
    )
