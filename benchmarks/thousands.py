"""The suite `connections`: thousands of raw connections beside two hundred members of fifty groups, and what each costs.

Owns: the order of one turn. Connections are opened and left alone (what one costs that does nothing), the groups settle
beside them, then all work at once; memory and CPU of the server are looked at before, between and after.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from confluent_kafka import Producer

from benchmarks import connections
from benchmarks.bench import Bench
from benchmarks.connections import CONNECTED, Load
from benchmarks.figures import LESS, Goal
from benchmarks.group_members import Crowd
from benchmarks.load import GIVE_UP_S, PARTITIONS, QUIET, SENT, value_of
from benchmarks.small import ACCEPTS

SECONDS = 30.0
QUICK = Load(producers=50, readers=50)
FULL = Load()
GROUPS, MEMBERS = 50, 4
JOBS_PER_S = 20  # records for the groups, each of which reads all of them
IDLE_S = 2.0
# Beside Kafka as it comes, and each beside the other with the same durability: neither flushes before it answers, or both do.
P99_GOALS = (Goal(1.0, 2.0), Goal(1.0, 2.0, subject="zafka os"), Goal(1.0, 2.0, reference="kafka flush"))


def thousands(bench: Bench) -> None:
    """2,000 connections (1,000 write 5 records a second each, 1,000 long-poll) and 200 members of 50 groups"""
    load, seconds = (QUICK, 2.0) if bench.quick else (FULL, bench.seconds or SECONDS)
    groups = 4 if bench.quick else GROUPS
    for number, system in bench.turns("zafka", "zafka os", "kafka", "kafka flush"):
        turn(bench, system, load, seconds=seconds, groups=groups, prefix=f"crowd-{number}-{system.replace(' ', '-')}")
        if system == "zafka" and number == 0:
            note_ceiling(bench, load, seconds=min(seconds, 10.0))


def turn(bench: Bench, system: str, load: Load, *, seconds: float, groups: int, prefix: str) -> None:
    target = bench.target(system)
    count = load.producers + load.readers
    with bench.topic(system) as events, bench.topic(system) as news, bench.topic(system) as jobs:
        before_bytes = target.pss_bytes()
        with generator(target.bootstrap, events, news, load, seconds) as process:
            idle_s, cpu_s = time.perf_counter(), target.cpu_s()
            time.sleep(IDLE_S)
            idle_cpu = (target.cpu_s() - cpu_s) / (time.perf_counter() - idle_s)
            idle_bytes = target.pss_bytes()
            crowd = Crowd(target.bootstrap, jobs, groups=groups, members=MEMBERS, partitions=PARTITIONS, prefix=prefix)
            try:
                crowd.settle()
                found, used, sent = work(bench, system, process, jobs, seconds)
                loaded_bytes = target.pss_bytes()
                members = crowd.finish(sent)
            finally:
                crowd.kill()
    name = f"{count:,} connections"
    note_latencies(bench, system, name, found)
    bench.note(f"{name}: errors and disconnects", "", system, sum(found["faults"].values()), better=LESS)
    bench.note(f"{name}: broker CPU", "us per request", system,
               used / (found["acks_per_s"] + found["fetches_per_s"]) * 1e6, better=LESS)
    bench.note(f"{name}: broker CPU of a connection", "ms per second", system, used / count * 1e3, better=LESS)
    bench.note(f"{name}, idle: broker CPU of a connection", "us per second", system, idle_cpu / count * 1e6, better=LESS)
    bench.note(f"{name}, idle: memory of a connection", "kB", system, (idle_bytes - before_bytes) / count / 1e3, better=LESS)
    bench.note(f"{name}: memory of the server (PSS)", "MB", system, loaded_bytes / 1e6, better=LESS)
    who = f"{groups * MEMBERS} members beside"
    bench.note(f"{who}: to their hands, p50", "ms", system, members["p50_ms"], better=LESS)
    bench.note(f"{who}: to their hands, p99", "ms", system, members["p99_ms"], better=LESS)
    bench.note(f"{who}: all settled", "s", system, members["settled_s"], better=LESS)
    bench.note(f"{who}: errors, records missing or twice", "", system, sum(members["faults"].values()), better=LESS)
    bench.note(f"{who}: rebalances", "", system, members["rebalances"], better=LESS)
    for what, faults in (("connections", found["faults"]), ("members", members["faults"])):
        if faults:
            print(f"{system}: {what}: {faults}", file=sys.stderr)


def note_latencies(bench: Bench, system: str, name: str, found: dict[str, Any]) -> None:
    for what, key in (("ack", "ack"), ("to a long poll", "delivery")):
        for share in ("p50", "p99", "p99.9"):
            bench.note(f"{name}: {what}, {share}", "ms", system, found[f"{key}_{share}_ms"], better=LESS,
                       goals=P99_GOALS if share == "p99" else ())


def note_ceiling(bench: Bench, load: Load, *, seconds: float) -> None:
    """The same load against a server that answers at once: what of the latencies is the generator's own."""
    server = subprocess.Popen([sys.executable, "-m", "benchmarks.small", "--null"], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        address = f"127.0.0.1:{server.stdout.readline().removeprefix(ACCEPTS).strip()}"
        alone = Load(load.producers, 0, load.per_s, 0, load.partitions)
        with generator(address, "t", "t", alone, seconds) as process:
            connections.start(process)
            found = connections.told(process)
    finally:
        server.kill()
        server.communicate()
    for share in ("p50", "p99", "p99.9"):
        bench.note(f"{load.producers + load.readers:,} connections: ack, {share}", "ms", "ceiling", found[f"ack_{share}_ms"], better=LESS)


def work(bench: Bench, system: str, process: subprocess.Popen[str], jobs: str, seconds: float) -> tuple[dict[str, Any], float, int]:
    """All at once: (what the generator saw, cores that the server used, records written for the groups)."""
    target = bench.target(system)
    connections.start(process)
    started_s, cpu_s = time.perf_counter(), target.cpu_s()
    sent = write_jobs(target.bootstrap, jobs, seconds)
    used = (target.cpu_s() - cpu_s) / (time.perf_counter() - started_s)
    return connections.told(process), used, sent


def write_jobs(bootstrap: str, topic: str, seconds: float) -> int:
    """Records at a steady rate for the groups; how many."""
    producer = Producer({**QUIET, "bootstrap.servers": bootstrap, "linger.ms": 0})
    count = int(JOBS_PER_S * seconds)
    started_s = time.perf_counter()
    for number in range(count):
        while (wait_s := started_s + number / JOBS_PER_S - time.perf_counter()) > 0:
            producer.poll(wait_s)
        producer.produce(topic, SENT.pack(time.perf_counter()) + value_of(92), partition=number % PARTITIONS)
    if producer.flush(GIVE_UP_S):
        raise RuntimeError("records for the groups are not acknowledged")
    return count


@contextmanager
def generator(bootstrap: str, events: str, news: str, load: Load, seconds: float) -> Iterator[subprocess.Popen[str]]:
    """A process with all connections open; it works once it is told to."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.connections", bootstrap, events, news, "--wait", *load.arguments(),
         "--seconds", str(seconds)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        if process.stdout.readline().strip() != CONNECTED:
            raise RuntimeError("the generator could not connect")
        yield process
    finally:
        process.kill()
        process.communicate()
