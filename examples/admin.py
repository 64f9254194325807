"""Create, look at and delete a topic. Needs a broker; python examples/admin.py [ADDRESS]"""

import sys

import zafka

with zafka.Admin(sys.argv[1] if len(sys.argv) > 1 else None) as admin:
    cluster = admin.describe_cluster()
    print("cluster", cluster.cluster_id, "with brokers", [broker.broker_id for broker in cluster.brokers])
    if "made-by-admin" in admin.list_topics():
        admin.delete_topics("made-by-admin")
    admin.create_topics([zafka.NewTopic("made-by-admin", partitions=2, config={"retention.ms": "3600000"})])
    (topic,) = admin.describe_topics("made-by-admin")
    for partition in topic.partitions:
        print(f"{topic.name}-{partition.partition} is led by broker {partition.leader}")
    for entry in admin.describe_configs(topic="made-by-admin"):
        if not entry.is_default:
            print(f"{entry.name}={entry.value} ({entry.source})")
    admin.delete_topics("made-by-admin")
    print("deleted")
