"""The suites of `make bench`: what is loaded, what is noted, and the goals of each row.

Each suite takes a `Bench` and notes rows; `SUITES` at the end names them with the time that one round takes on an idle
machine of two cores. Suites with `warm` get both servers running and warm; the others start what they need.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks import commits, group_recovery, groups, java, load, recovery, small
from benchmarks.bench import Bench
from benchmarks.figures import LESS, Goal
from benchmarks.native import native
from benchmarks.thousands import thousands

# Size of a record to how many of them one measurement sends.
THROUGHPUT = {100: 1_000_000, 1000: 400_000, 10_000: 40_000, 1_000_000: 400}
PRODUCE_GOALS = {
    100: (Goal(0.95, 1.2),),
    1000: (Goal(0.8, 1.1), Goal(1.0, 1.4, subject="zafka os")),
}
PRODUCE_CPU_GOALS = (Goal(0.7, 1.0), Goal(1.0, 1.5, subject="zafka os"))
PASSES = 2  # one reading of everything is over too soon for a CPU clock of 10 ms
SMALL_GOALS = {1: Goal(0.3, 0.6), 5: Goal(1.0, 1.5), 20: Goal(1.5, 2.0)}
ALL = ("zafka", "zafka os", "kafka", "kafka flush")
# Records are spread over this many partitions; the load is the same.
PARTITIONS = (1, 4, 50, 200)
PRODUCERS = (1, 10, 100, 1000)
COMMITTERS = 100  # members of one group


def size_text(size_bytes: int) -> str:
    return {1000: "1 kB", 10_000: "10 kB", 1_000_000: "1 MB"}.get(size_bytes, f"{size_bytes} B")


def throughput(bench: Bench) -> None:
    """produce and consume with confluent-kafka, their CPU, and the disk that it takes"""
    for _, system in bench.turns("zafka", "zafka os", "kafka"):
        for size_bytes, full_count in THROUGHPUT.items():
            batch_load(bench, system, size_bytes, bench.scaled(full_count))


def batch_load(bench: Bench, system: str, size_bytes: int, count: int) -> None:
    target, size = bench.target(system), size_text(size_bytes)
    goals = PRODUCE_GOALS.get(size_bytes, ())
    cpu_goals = PRODUCE_CPU_GOALS if goals else ()
    with bench.topic(system) as topic:
        cpu_s, disk_bytes = target.cpu_s(), target.disk_bytes()
        took_s = load.produce(target.bootstrap, topic, count=count, size_bytes=size_bytes)
        used_s = target.cpu_s() - cpu_s
        bench.note(f"produce {size}", "records/s", system, count / took_s, goals=goals)
        bench.note(f"produce {size}: broker CPU", "s per million", system, used_s / count * 1e6, better=LESS, goals=cpu_goals)
        bench.note(f"produce {size}: disk", "bytes per byte", system,
                   (target.disk_bytes() - disk_bytes) / (count * size_bytes), better=LESS)
        cpu_s = target.cpu_s()
        took_s = sum(load.consume(target.bootstrap, topic, count=count) for _ in range(PASSES))
        used_s = target.cpu_s() - cpu_s
        read = count * PASSES
        bench.note(f"consume {size}", "records/s", system, read / took_s, goals=(Goal(1.0, 1.3),) if goals else ())
        bench.note(f"consume {size}: broker CPU", "s per million", system, used_s / read * 1e6, better=LESS,
                   goals=(Goal(1.0, 2.0),) if goals else ())


def java_perf(bench: Bench) -> None:
    """produce and consume with Java's ProducerPerformance and ConsumerPerformance"""
    for _, system in bench.turns("zafka", "zafka os", "kafka"):
        for size_bytes in (100, 1000, 10_000, 1_000_000):
            target, count = bench.target(system), bench.scaled(2 * THROUGHPUT[size_bytes])
            with bench.topic(system) as topic:
                cpu_s = target.cpu_s()
                per_s = java.produce(target.bootstrap, topic, count=count, size_bytes=size_bytes)
                name = f"Java produce {size_text(size_bytes)}"
                bench.note(name, "records/s", system, per_s, goals=PRODUCE_GOALS.get(size_bytes, ()))
                bench.note(f"{name}: broker CPU", "s per million", system, (target.cpu_s() - cpu_s) / count * 1e6, better=LESS)
                per_s = java.consume(target.bootstrap, topic, count=count)
                bench.note(f"Java consume {size_text(size_bytes)}", "records/s", system, per_s)


def small_requests(bench: Bench) -> None:
    """one record per request from a raw generator, 16 connections, 1, 5 and 20 in flight each"""
    seconds = 0.5 if bench.quick else 5.0
    for number, system in bench.turns(*ALL):
        for in_flight, goal in SMALL_GOALS.items():
            name = f"small requests, {in_flight} in flight"
            with bench.topic(system) as topic:
                raw_load(bench, system, topic, name, connections=16, in_flight=in_flight, seconds=seconds, goals=(goal,))
            if number == 0 and system == "zafka":
                found = small.ceiling(connections=16, in_flight=in_flight, seconds=seconds)
                bench.note(name, "requests/s", "ceiling", found["per_s"])


def raw_load(
    bench: Bench, system: str, topic: str, name: str, *, connections: int, in_flight: int, seconds: float,
    goals: tuple[Goal, ...] = (),
) -> None:
    target = bench.target(system)
    cpu_s = target.cpu_s()
    found = small.run(target.bootstrap, topic, connections=connections, in_flight=in_flight, seconds=seconds)
    used_s = target.cpu_s() - cpu_s
    bench.note(name, "requests/s", system, found["per_s"], goals=goals)
    bench.note(f"{name}: p99", "ms", system, found["p99_ms"], better=LESS)
    answered = found["per_s"] * (seconds + small.SETTLING_S)
    bench.note(f"{name}: broker CPU", "s per million", system, used_s / answered * 1e6, better=LESS)


def latency(bench: Bench) -> None:
    """acknowledgement at 100, 500 and 5,000 records a second, and end to end at 500"""
    seconds = 1.0 if bench.quick else 8.0
    for _, system in bench.turns(*ALL):
        bootstrap = bench.target(system).bootstrap
        for rate_per_s in (100, 500, 5000):
            if (system, rate_per_s) == ("kafka flush", 5000):
                continue  # its flushes do not keep up, and a queue that grows has no latency
            with bench.topic(system) as topic:
                found = load.ack_latency_ms(bootstrap, topic, rate_per_s=rate_per_s, seconds=seconds)
            for name, value in found.items():
                goals = (Goal(1.0, 4.0),) if (rate_per_s, name) == (500, "p99") else ()
                bench.note(f"ack at {rate_per_s:,}/s, {name}", "ms", system, value, better=LESS, goals=goals)
        with bench.topic(system) as topic:
            found = load.end_to_end_ms(bootstrap, topic, rate_per_s=500, seconds=seconds)
        for name, value in found.items():
            goals = (Goal(1.0, 3.0),) if name == "p99" else ()
            bench.note(f"end to end at 500/s, {name}", "ms", system, value, better=LESS, goals=goals)


def partitions(bench: Bench) -> None:
    """the same load of 100 B records over 1, 4, 50 and 200 partitions"""
    count = bench.scaled(500_000)
    for _, system in bench.turns("zafka", "kafka"):
        target = bench.target(system)
        for number in PARTITIONS[:2] if bench.quick else PARTITIONS:
            goals = (Goal(1.0, 1.3),) if number == 200 else ()
            with bench.topic(system, number) as topic:
                cpu_s = target.cpu_s()
                took_s = load.produce(target.bootstrap, topic, count=count, size_bytes=100, partitions=number)
                bench.note(f"produce, {number} partitions", "records/s", system, count / took_s, goals=goals)
                took_s = load.consume(target.bootstrap, topic, count=count, partitions=number)
                bench.note(f"consume, {number} partitions", "records/s", system, count / took_s, goals=goals)
                bench.note(f"both, {number} partitions: broker CPU", "s per million", system,
                           (target.cpu_s() - cpu_s) / count * 1e6, better=LESS)


def producers(bench: Bench) -> None:
    """1, 10, 100 and 1,000 connections, each with one record on the way (raw generator)"""
    seconds = 0.5 if bench.quick else 5.0
    for _, system in bench.turns("zafka", "kafka"):
        for number in PRODUCERS[:2] if bench.quick else PRODUCERS:
            with bench.topic(system) as topic:
                raw_load(bench, system, topic, f"{number:,} producers", connections=number, in_flight=1, seconds=seconds)


def consumer_groups(bench: Bench) -> None:
    """a group of 10 over 100 partitions: how long it takes to start, to take one more in, and to let one go"""
    protocols = list(groups.PROTOCOLS.items())[:1] if bench.quick else groups.PROTOCOLS.items()
    for number, system in bench.turns("zafka", "kafka"):
        target = bench.target(system)
        for protocol, settings in protocols:
            with bench.topic(system, groups.PARTITIONS) as topic:
                found = groups.settling_s(target.bootstrap, topic, f"group-{protocol}-{number}", settings)
            for what, taken_s in found.items():
                bench.note(f"group, {protocol}: {what}", "s", system, taken_s, better=LESS, goals=(Goal(1.0, 3.0),))


def commits_of_members(bench: Bench) -> None:
    """offsets committed by 100 members of one group, each one's next as soon as the last is answered"""
    members, seconds = (10, 0.5) if bench.quick else (COMMITTERS, 5.0)
    for number, system in bench.turns("zafka", "kafka"):
        with bench.topic(system) as topic:
            found = commits.run(
                bench.target(system).bootstrap, topic, f"committing-{number}", members=members,
                seconds=seconds)
        name = f"commits of {members} members"
        bench.note(name, "commits/s", system, found["commits_per_s"])
        bench.note(f"{name}, p50", "ms", system, found["p50_ms"], better=LESS)
        bench.note(f"{name}, p99", "ms", system, found["p99_ms"], better=LESS)


def large_log(bench: Bench) -> None:
    """throughput with 20 GB of log in the topic against an empty one, and the broker's memory"""
    log_bytes = 200_000_000 if bench.quick else 20_000_000_000
    count = bench.scaled(400_000)
    recovery.need_room(2 * log_bytes)
    for _, system in bench.turns("zafka"):
        target = bench.target(system)
        with bench.topic(system) as empty:
            for state in ("empty", "20 GB"):
                if state == "20 GB":
                    load.produce(target.bootstrap, empty, count=log_bytes // 10_000, size_bytes=10_000)
                produced_s = load.produce(target.bootstrap, empty, count=count, size_bytes=1000)
                consumed_s = load.consume_last(target.bootstrap, empty, count=count)
                bench.note(f"produce 1 kB, {state}", "records/s", system, count / produced_s)
                bench.note(f"consume 1 kB at the end, {state}", "records/s", system, count / consumed_s)
                bench.note(f"broker memory (PSS), {state}", "MB", system, target.pss_bytes() / 1e6, better=LESS)


def ceiling(bench: Bench) -> None:
    """confluent-kafka against librdkafka's own mock broker in its process: what the client can do at most"""
    for size_bytes, full_count in THROUGHPUT.items():
        for _ in range(bench.round_count):
            count = bench.scaled(full_count)
            took_s = load.produce("127.0.0.1:1", "mock", count=count, size_bytes=size_bytes,
                                  settings={"test.mock.num.brokers": 1})
            bench.note(f"produce {size_text(size_bytes)}, no broker", "records/s", "ceiling", count / took_s)


def start(bench: Bench) -> None:
    """from nothing to the first acknowledged record, and the memory of the idle cluster"""
    for number in range(1 if bench.quick else 5):
        for system in bench.systems("zafka", "kafka"):
            for taken_ms in recovery.start_to_first_ack_ms(system, rounds=1):
                bench.note("start to the first acknowledged record", "ms", system, taken_ms, better=LESS,
                           goals=(Goal(2.0, 5.0),))
            if number == 0:
                bench.note("idle, 4 partitions (PSS)", "MB", system, recovery.idle_pss_mb(system), better=LESS,
                           goals=(Goal(2.5, 3.0),))


def recover(bench: Bench) -> None:
    """one partition killed with 1 GB of log, everything killed with 2 GB, a clean log of 10 GB opened, groups' coordinators killed"""
    size_bytes = recovery.GIB // 50 if bench.quick else recovery.GIB
    recovery.need_room(12 * size_bytes)
    for taken_ms in recovery.partition_restart_ms(size_bytes=size_bytes):
        bench.note("partition killed, 1 GB of log, to the next ack", "ms", "zafka", taken_ms, better=LESS)
    for system in bench.systems("zafka", "kafka"):
        bench.note("everything killed, 2 GB of log, to the first ack", "ms", system,
                   recovery.all_killed_ms(system, size_bytes=2 * size_bytes), better=LESS)
    bench.note("read to open a clean log of 10 GB", "bytes", "zafka",
               recovery.clean_open_rchar(size_bytes=10 * size_bytes), better=LESS)
    count = 10_000 if bench.quick else 1_000_000
    bench.note(f"coordinator with {count:,} committed offsets, its start", "s", "zafka",
               group_recovery.offsets_start_s(count), better=LESS)
    with group_recovery.recovering_broker() as broker:
        for number in range(1 if bench.quick else 5):
            for phase in group_recovery.PHASES:
                bench.note(f"coordinator of a group killed during {phase}, to all of it again", "s", "zafka",
                           group_recovery.recovery_s(broker, phase, f"{phase}-{number}"), better=LESS)
                time.sleep(recovery.SETTLED_S)


@dataclass(frozen=True)
class Suite:
    """run: notes rows. minutes: of one round, both servers. warm: needs both servers running."""

    run: Callable[[Bench], None]
    minutes: float
    warm: bool = True

    @property
    def about(self) -> str:
        return (self.run.__doc__ or "").strip()


SUITES = {
    "throughput": Suite(throughput, 1.0),
    "java": Suite(java_perf, 1.5),
    "small": Suite(small_requests, 1.5),
    "latency": Suite(latency, 2.5),
    "partitions": Suite(partitions, 1.0),
    "producers": Suite(producers, 1.0),
    "connections": Suite(thousands, 3.4),
    "native": Suite(native, 0.7, warm=False),
    "groups": Suite(consumer_groups, 1.5),
    "commits": Suite(commits_of_members, 0.3),
    "ceiling": Suite(ceiling, 0.3, warm=False),
    "start": Suite(start, 1.0, warm=False),
    "recovery": Suite(recover, 6.0, warm=False),
    "large": Suite(large_log, 5.0),
}
