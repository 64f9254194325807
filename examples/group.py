"""Two consumers share a topic, one leaves, the other goes on with all of it: every record is worked on once.

    python examples/group.py
"""

from __future__ import annotations

from collections.abc import Callable

import zafka

RECORDS = 300


def told(name: str) -> Callable[[zafka.Rebalance], None]:
    def on_rebalance(event: zafka.Rebalance) -> None:
        print(f"{name}: +{len(event.assigned)} -{len(event.revoked)} because {event.why}")

    return on_rebalance


def main() -> None:
    with zafka.Broker(topics={"orders": 6}) as broker:
        with zafka.Producer(broker.bootstrap_servers) as producer:
            for number in range(RECORDS):
                producer.send("orders", str(number).encode(), key=str(number % 17).encode())

        def join(name: str) -> zafka.Consumer:
            return zafka.Consumer(
                "orders", bootstrap_servers=broker.bootstrap_servers, group_id="billing", auto_offset_reset="earliest",
                on_rebalance=told(name))

        worked: list[int] = []
        with join("first") as first:
            second = join("second")
            while len(first.assignment()) != 3 or len(second.assignment()) != 3:
                for consumer in (first, second):
                    worked += [int(record.value or b"") for record in consumer.poll(0.05, max_records=10)]
            second.close()  # commits, and leaves
            for record in first.records(timeout=3.0):
                worked.append(int(record.value or b""))
        assert sorted(worked) == list(range(RECORDS)), "each once"
        with zafka.Admin(broker.bootstrap_servers) as admin:
            print(admin.describe_groups("billing")[0].state, sum(admin.list_group_offsets("billing").values()))


if __name__ == "__main__":
    main()
