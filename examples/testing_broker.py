"""A real broker for a test: started, killed in the middle, gone at the end. python examples/testing_broker.py"""

import zafka

with zafka.Broker(topics={"orders": 1}) as broker, zafka.Producer(broker.zmq_bootstrap_servers) as producer:
    futures = [producer.send("orders", b"%d" % number) for number in range(100)]
    futures[0].result()
    broker.kill("partition orders-0")  # its supervisor starts it again, from its log
    futures += [producer.send("orders", b"%d" % number) for number in range(100, 200)]
    assert [future.result().offset for future in futures] == list(range(200))
    print("200 records, once each and in order, over a kill -9")
