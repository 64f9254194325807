"""A partition's process is killed while records are on their way: nothing is lost, doubled or out of order.

python examples/kill_a_partition.py            # brings its own broker
"""

import zafka

with (
    zafka.Broker(topics={"orders": 1}) as broker,
    zafka.Producer(broker.zmq_bootstrap_servers) as producer,
):
    futures = []
    for number in range(20_000):
        futures.append(producer.send("orders", b"%d" % number))
        if number % 5_000 == 2_500:
            futures[-1].result()  # it serves (again)
            print("killing process", broker.kill("partition orders-0"))
    assert [future.result().offset for future in futures] == list(range(20_000))

    with zafka.Consumer("orders", bootstrap_servers=broker.bootstrap_servers, auto_offset_reset="earliest") as consumer:
        values = [record.value for batch in consumer.batches(timeout=1.0) for record in batch]
    assert values == [b"%d" % number for number in range(20_000)]
    print(len(values), "records, each one once and in order; restarts:", broker.actor("partition orders-0")["restarts"])
