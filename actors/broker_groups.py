"""What a broker tells the group coordinators among its replicas: the topics of the cluster, and what was altered of groups.

Owns: `GroupCoordinators`, who was told what. They decide on topics (which a member reads, which were deleted), and do not
read the cluster's log themselves.
Invariant: a coordinator is told of a change before any request of a client that rests on it.
"""

from __future__ import annotations

from zafka.actors.actor import Effects, Peer, Send
from zafka.actors.cluster_state import ClusterState
from zafka.actors.dynamic_config import group_configs
from zafka.actors.gateway.group_relay import GROUP_TOPIC
from zafka.actors.gateway.routes import Routes
from zafka.actors.messages import TopicsTold


class GroupCoordinators:
    def __init__(self, broker_id: int, cluster: ClusterState, routes: Routes) -> None:
        self._broker_id = broker_id
        self._cluster = cluster
        self._routes = routes
        self._told: dict[Peer, int] = {}  # which of the changes
        self._change = 0
        self.dirty = False  # a coordinator may have come, or the topics changed

    def on_configs_changed(self) -> None:
        self.on_topics_changed()

    def on_topics_changed(self) -> None:
        self._change += 1
        self.dirty = True

    def on_turn_end(self) -> Effects:
        """Tell each coordinator that serves and does not know."""
        if not self.dirty:
            return []
        self.dirty = False
        routes = self._routes.by_topic.get(GROUP_TOPIC, {}).values()
        peers = [route.peer for route in routes if route.peer is not None]
        unaware = [peer for peer in peers if self._told.get(peer) != self._change]
        self._told = dict.fromkeys(peers, self._change)
        if not unaware:
            return []
        told = TopicsTold([
            (name, topic.topic_id, len(topic.partitions)) for name, topic in self._cluster.topics_by_name.items()],
            group_configs(self._broker_id, self._cluster))
        return [Send(peer, told) for peer in unaware]
