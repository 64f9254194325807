"""Our producer's two ways to a partition of its own machine: straight to it, and through the broker, in alternating rounds.

    python -m benchmarks.direct [--rounds N] [--acks N] [--records N] [--json FILE]

One broker, every producer idempotent through the ZeroMQ door. Told for each way: the time of an acknowledgement with one
record on its way at a time, in us; and, for many records on four partitions by `send_many`, how many a second, and CPU
seconds of all of the broker's processes and of this one per million.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from statistics import median

import zafka
from benchmarks.proc import tree_cpu_s

PARTITIONS = 4
SIZES = (100, 1000)
WARM = 300
CHUNK = 10_000

Row = dict[str, float]


def acknowledgements(producer: zafka.Producer, count: int) -> Row:
    taken_s = []
    for _ in range(count):
        started_s = time.perf_counter()
        producer.send("one", b"x" * 100).result(30)
        taken_s.append(time.perf_counter() - started_s)
    taken_s.sort()
    return {"p50 us": taken_s[count // 2] * 1e6, "p99 us": taken_s[count * 99 // 100] * 1e6}


def many(broker: zafka.Broker, producer: zafka.Producer, size: int, records: int) -> Row:
    values = [b"x" * size] * CHUNK
    tree_s, own_s, started_s = tree_cpu_s(broker.pid), time.process_time(), time.perf_counter()
    for _ in range(records // CHUNK):
        producer.send_many("many", values)
    producer.flush()
    elapsed_s = time.perf_counter() - started_s
    millions = records / 1e6
    return {
        f"{size} B: k/s": records / elapsed_s / 1e3, f"{size} B: tree CPU s/M": (tree_cpu_s(broker.pid) - tree_s) / millions,
        f"{size} B: client CPU s/M": (time.process_time() - own_s) / millions}


def measure(broker: zafka.Broker, way: bool, options: argparse.Namespace) -> Row:
    with zafka.Producer(broker.zmq_bootstrap_servers, linger_ms=0, direct=way) as producer:
        for _ in range(WARM):
            producer.send("one", b"x").result(30)
        row = acknowledgements(producer, options.acks)
    with zafka.Producer(broker.zmq_bootstrap_servers, direct=way) as producer:
        many(broker, producer, 100, 10 * CHUNK)
        for size in SIZES:
            row |= many(broker, producer, size, options.records)
    return row


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--acks", type=int, default=2000)
    parser.add_argument("--records", type=int, default=500_000)
    parser.add_argument("--json")
    options = parser.parse_args()
    rows: dict[str, list[Row]] = {"direct": [], "broker": []}
    with zafka.Broker({"one": 1, "many": PARTITIONS}, allow_faults=False) as broker:
        for number in range(options.rounds):
            for way in (True, False) if number % 2 == 0 else (False, True):
                rows["direct" if way else "broker"].append(measure(broker, way, options))
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
    medians = {way: {key: median(row[key] for row in told) for key in told[0]} for way, told in rows.items()}
    for key, direct in medians["direct"].items():
        through = medians["broker"][key]
        print(f"{key:24} direct {direct:10.2f}   broker {through:10.2f}   {direct / through:5.2f}x")
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"options": vars(options), "rows": rows}, file, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
