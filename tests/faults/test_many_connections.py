"""200 raw connections at once, half of them long polls on the same few partitions, and groups beside them: no error, no
disconnect, every record to everybody once. The load of `make bench ARGS="--only connections"`, small."""

from __future__ import annotations

from benchmarks import connections
from benchmarks.commits import run as commit
from benchmarks.connections import Load
from benchmarks.group_members import Crowd
from benchmarks.thousands import generator, write_jobs
from zafka.testing import Broker

SECONDS = 2.0
GROUPS, MEMBERS, PARTITIONS = 2, 2, 4


def test_many_connections_and_groups_beside_them() -> None:
    load = Load(producers=100, readers=100, per_s=5.0, news_per_s=10.0, partitions=2)
    with Broker({"events": 2, "news": 2, "jobs": PARTITIONS}) as broker:
        address = broker.bootstrap_servers
        with generator(address, "events", "news", load, SECONDS) as process:
            crowd = Crowd(address, "jobs", groups=GROUPS, members=MEMBERS, partitions=PARTITIONS, prefix="crowd")
            try:
                crowd.settle()
                connections.start(process)
                sent = write_jobs(address, "jobs", SECONDS)
                found = connections.told(process)
                members = crowd.finish(sent)
            finally:
                crowd.kill()
    assert found["faults"] == {} and members["faults"] == {}
    assert members["deliveries"] == GROUPS * sent and members["rebalances"] == 0
    # Whatever was late: all of it came. Two of the partitions' readers see each piece of news.
    assert found["acks_per_s"] > 0.5 * load.rate_per_s
    assert found["deliveries_per_s"] > 0.5 * load.news_per_s * load.readers / load.partitions


def test_members_of_a_group_commit_and_none_is_fenced() -> None:
    with Broker({"orders": 4}) as broker:
        found = commit(broker.bootstrap_servers, "orders", "committing", members=20, seconds=0.5)
    assert found["members"] == 20 and found["commits_per_s"] > 0 and found["settled_s"] > 0
