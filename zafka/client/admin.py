"""`zafka.Admin`: topics, partitions, records, configuration and groups.

Owns: the blocking face of `admin_base.AdminBase`. Every method waits for its answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Literal, Self, overload

from zafka.client.admin_base import (
    BY_BROKER_DEFAULT,
    AdminBase,
    BrokerInfo,
    ClusterInfo,
    ConfigEntry,
    ConfigOwner,
    NewTopic,
    PartitionInfo,
    TopicInfo,
)
from zafka.client.admin_groups import GroupInfo, GroupListing, GroupMemberInfo
from zafka.client.core import list_topics
from zafka.client.records import OffsetAndMetadata, Offsets, Partitions, TopicPartition
from zafka.client.waiting import run

__all__ = [
    "BY_BROKER_DEFAULT", "Admin", "BrokerInfo", "ClusterInfo", "ConfigEntry", "GroupInfo", "GroupListing", "GroupMemberInfo",
    "NewTopic", "PartitionInfo", "TopicInfo",
]  # fmt: skip


class Admin(AdminBase):
    __doc__ = AdminBase.__doc__

    def _begin(self) -> None:
        run(self._start())

    def create_topic(
        self,
        name: str,
        partitions: int = BY_BROKER_DEFAULT,
        replication_factor: int = BY_BROKER_DEFAULT,
        config: Mapping[str, Any] | None = None,
    ) -> TopicInfo:
        """Create one topic and return it once its partitions have leaders.

        partitions, replication_factor: -1 leaves them to the brokers. config: topic configuration by Kafka's names.
        Raises BrokerRefused.
        """
        return run(self._create_topic(name, partitions, replication_factor, config))

    def create_topics(self, topics: Iterable[NewTopic], *, validate_only: bool = False) -> list[TopicInfo]:
        """Create topics; returns them once their partitions have leaders (with `validate_only`: []).

        Raises BrokerRefused for the first that was refused; then the others may have been created.
        """
        return run(self._create_topics(topics, validate_only))

    def delete_topics(self, names: str | Iterable[str]) -> None:
        """Delete topics and all their records. Raises UnknownTopic, BrokerRefused."""
        run(self._delete_topics(names))

    def list_topics(self, *, internal: bool = False) -> list[str]:
        """Names of all topics, in order; internal ones only if asked for."""
        return run(list_topics(self._core, self._timeout, internal=internal))

    def describe_topics(self, names: str | Iterable[str]) -> list[TopicInfo]:
        """Partitions and leaders of topics, in the order of the names. Raises UnknownTopic, BrokerRefused."""
        return run(self._describe_topics(names))

    def coordinator_of(self, group_id: str) -> int:
        """The id of the broker that a client is sent to for a group. Raises RequestTimedOut, BrokerRefused."""
        return run(self._coordinator_of(group_id))

    def api_versions(self) -> dict[str, tuple[int, int]]:
        """First and last version of each API that brokers tell clients, by Kafka's names."""
        return run(self._api_versions())

    def describe_configs(
        self, *, topic: str | None = None, broker: int | str | None = None, group: str | None = None,
        documentation: bool = False,
    ) -> list[ConfigEntry]:
        """The whole configuration of one topic, broker or group; of broker "" what was altered of all brokers.

        Raises UnknownTopic, BrokerRefused.
        """
        return run(self._describe_configs(ConfigOwner(topic, broker, group), documentation))

    def alter_config(
        self, topic: str | None = None, config: Mapping[str, Any] | None = None, *, broker: int | str | None = None,
        group: str | None = None, validate_only: bool = False,
    ) -> None:
        """Change single keys of the configuration of a topic, a broker ("": of all) or a group; the others stay.

        In force when this returns. config: by Kafka's names; None takes a key's own value away, so that the default holds.
        validate_only: change nothing, only say whether it could be done. Raises UnknownTopic, BrokerRefused.
        """
        run(self._alter_config(ConfigOwner(topic, broker, group), config, validate_only))

    def create_partitions(
        self, topic: str, partitions: int, *, assignment: Iterable[Iterable[int]] | None = None,
        validate_only: bool = False,
    ) -> TopicInfo:
        """Give a topic more partitions: `partitions` in all. Returns it once they have leaders.

        assignment: broker ids of each new partition's replicas; without it the brokers choose.
        validate_only: change nothing, only say whether it could be done.
        Records stay where they are, so a key may go to another partition from now on.
        Raises UnknownTopic, BrokerRefused.
        """
        return run(self._create_partitions(topic, partitions, assignment, validate_only))

    def delete_records(self, offsets: Mapping[tuple[str, int], int]) -> dict[TopicPartition, int]:
        """Delete all records before these offsets, for good; -1 stands for all that there is.

        offsets: by (topic, partition). Returns the first offset that is left of each; on disk when this returns.
        Raises UnknownTopic, BrokerRefused, RequestTimedOut.
        """
        return run(self._delete_records(offsets))

    # -- groups ----------------------------------------------------------------------------------

    def list_groups(self) -> list[GroupListing]:
        """All groups of the cluster, by name."""
        return run(self._list_groups())

    def describe_groups(self, group_ids: str | Iterable[str]) -> list[GroupInfo]:
        """State, members and what each was given, in the order of the names. Raises BrokerRefused (GROUP_ID_NOT_FOUND)."""
        return run(self._describe_groups(group_ids))

    def delete_groups(self, group_ids: str | Iterable[str]) -> None:
        """Delete groups that have no members, with their committed offsets. Raises BrokerRefused."""
        run(self._delete_groups(group_ids))

    @overload
    def list_group_offsets(self, group_id: str, *, metadata: Literal[False] = False) -> dict[TopicPartition, int]: ...

    @overload
    def list_group_offsets(
        self, group_id: str, *, metadata: Literal[True]
    ) -> dict[TopicPartition, OffsetAndMetadata]: ...

    def list_group_offsets(
        self, group_id: str, *, metadata: bool = False
    ) -> dict[TopicPartition, int] | dict[TopicPartition, OffsetAndMetadata]:
        """What a group has committed; nothing for a group that nobody knows.

        metadata: with the text that was committed beside each offset, as OffsetAndMetadata.
        """
        found = run(self._list_group_offsets(group_id))
        return found if metadata else {where: committed.offset for where, committed in found.items()}

    def alter_group_offsets(self, group_id: str, offsets: Offsets) -> None:
        """Commit offsets for a group that has no members now; its next ones begin there. Raises BrokerRefused."""
        run(self._alter_group_offsets(group_id, offsets))

    def delete_group_offsets(self, group_id: str, partitions: Partitions) -> None:
        """Delete what a group has committed of these partitions, none of whose topics its members read. Raises BrokerRefused."""
        run(self._delete_group_offsets(group_id, partitions))

    def close(self) -> None:
        """End the I/O thread. Closing again does nothing."""
        run(self._close())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
