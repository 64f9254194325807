"""Read what a topic got in the last hour, up to now, partition by partition.

python examples/last_hour.py TOPIC [ADDRESS]
"""

import sys
import time

import zafka

topic, *where = sys.argv[1:]
an_hour_ago_ms = int((time.time() - 3600) * 1000)

with zafka.Consumer(bootstrap_servers=where or None) as consumer:
    partitions = [zafka.TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic)]
    begin = consumer.offsets_for_times(dict.fromkeys(partitions, an_hour_ago_ms))
    end = consumer.end_offsets(partitions)
    for partition in partitions:
        first = begin[partition]
        if first is None:
            continue  # nothing that late
        consumer.assign([partition])
        consumer.seek(partition, first.offset)
        while consumer.position(partition) < end[partition]:
            for record in consumer.poll(timeout=5.0, max_records=end[partition] - consumer.position(partition)):
                print(record.partition, record.offset, record.timestamp, record.key, record.value)
