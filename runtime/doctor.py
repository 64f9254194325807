"""What could keep zafka from running here, and what a client at an address is told.

Owns: the checks, each of which returns `Finding`s and raises nothing that a user could cause.
"""

from __future__ import annotations

import os
import platform
import resource
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from zafka.runtime.findings import Finding
from zafka.runtime.group_doctor import check_groups

if TYPE_CHECKING:
    from zafka.client.admin import BrokerInfo, TopicInfo

OPEN_FILES_LEAST = 4096
FLUSHES = 20
FLUSH_SLOW_MS = 20.0
CONNECT_S = 2.0
ANSWER_S = 10.0  # for each question


def check_machine(data_dir: Path) -> Iterator[Finding]:
    """Platform, limits, disk."""
    version = platform.python_version()
    supported = (3, 11) <= sys.version_info[:2] <= (3, 14) and platform.python_implementation() == "CPython"
    yield Finding("ok" if supported else "warning", "Python",
                  f"{platform.python_implementation()} {version}"
                  + ("" if supported else "; tested with CPython 3.11 to 3.14"))
    if sys.platform != "linux":
        yield Finding("problem", "system", f"brokers run on Linux only, and this is {sys.platform}; the client works here")
        return
    import psutil

    memory = psutil.virtual_memory()
    yield Finding("ok", "machine", f"{platform.system()} {platform.release()}, {os.cpu_count()} cores, "
                                   f"{memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB memory free")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = hard == resource.RLIM_INFINITY or hard >= OPEN_FILES_LEAST
    yield Finding("ok" if enough else "warning", "open files",
                  f"{'no limit' if hard == resource.RLIM_INFINITY else hard} per process (hard limit)"
                  + ("" if enough else f"; with fewer than {OPEN_FILES_LEAST} a broker runs out early: `ulimit -Hn`"))
    yield check_disk(data_dir)


def check_disk(data_dir: Path) -> Finding:
    """How long a flush takes where the data would lie, because every acknowledgement waits for one."""
    place = next(path for path in [data_dir, *data_dir.parents] if path.is_dir())
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            taken_ms = []
            for _ in range(FLUSHES):
                os.write(file.fileno(), bytes(4096))
                started_s = time.perf_counter()
                os.fdatasync(file.fileno())
                taken_ms.append((time.perf_counter() - started_s) * 1000)
        space = os.statvfs(place)
    except OSError as error:
        return Finding("problem", "disk", f"cannot write in {place}: {error.strerror}")
    median_ms = sorted(taken_ms)[FLUSHES // 2]
    text = f"{place}: {space.f_bavail * space.f_frsize / 1e9:.1f} GB free, a flush takes {median_ms:.2f} ms"
    if median_ms > FLUSH_SLOW_MS:
        return Finding("warning", "disk", text + "; `fsync: interval` trades the last second of records for speed")
    return Finding("ok", "disk", text)


def check_address(bootstrap: str, *, asked: bool, group: str | None = None) -> Iterator[Finding]:
    """What a client is told at an address, and whether it could follow. asked: the user gave the address.

    group: tell of this group only, and to whom its members are sent."""
    from zafka.client.admin import Admin
    from zafka.client.consumer import Consumer
    from zafka.client.errors import NoBroker, ZafkaError

    try:
        started_s = time.perf_counter()
        with Admin(bootstrap, api_timeout=ANSWER_S) as admin:
            answer_ms = (time.perf_counter() - started_s) * 1000
            cluster = admin.describe_cluster()
            yield Finding("ok", "cluster", f"{cluster.cluster_id or 'without an id'} at {bootstrap}, answered in {answer_ms:.0f} ms")
            brokers = [check_broker(broker) for broker in cluster.brokers]
            yield from brokers
            if brokers and all(finding.level == "problem" for finding in brokers):
                return  # where clients are sent nobody answers, so there is nobody to ask the rest
            yield told_versions(admin.api_versions())
            topics = admin.describe_topics(admin.list_topics())
            yield check_leaders(topics)
            with Consumer(bootstrap_servers=bootstrap, api_timeout=ANSWER_S) as consumer:
                yield from check_groups(admin, consumer, cluster, group)
    except NoBroker as error:
        yield Finding("problem" if asked else "warning", "cluster", str(error))
        return
    except ZafkaError as error:
        yield Finding("problem", "cluster", str(error))


def told_versions(versions: dict[str, tuple[int, int]]) -> Finding:
    """What a client may ask. Those that everybody needs, and both protocols of groups."""
    told = [f"{name} {versions[name][0]} to {versions[name][1]}" for name in ("Produce", "Fetch", "Metadata") if name in versions]
    kinds = [kind for kind, name in (("classic", "JoinGroup"), ("KIP-848", "ConsumerGroupHeartbeat")) if name in versions]
    return Finding("ok", "protocol", f"{len(versions)} APIs: {', '.join(told)}; groups: {' and '.join(kinds) or 'none'}")


def check_leaders(topics: list[TopicInfo]) -> Finding:
    count = sum(len(topic.partitions) for topic in topics)
    leaderless = [f"{topic.name}-{one.partition}" for topic in topics for one in topic.partitions if one.leader < 0]
    if leaderless:
        return Finding("problem", "topics", f"{len(leaderless)} of {count} partitions have no leader: {', '.join(leaderless[:5])}")
    return Finding("ok", "topics", f"{len(topics)} with {count} partitions, all served")


def check_broker(broker: BrokerInfo) -> Finding:
    """Clients connect to the address that a broker advertises, whichever they used first."""
    address = broker.address
    told = f"clients are told to connect to {address}"
    subject = f"broker {broker.broker_id}"
    if address.protocol == "ipc":
        return Finding("ok", subject, told)
    try:
        socket.create_connection((address.host, address.port), CONNECT_S).close()
    except OSError as error:
        return Finding("problem", subject, f"{told}, and that fails from here: {error.strerror or error}. "
                                           "Its listener's 'advertise' must be an address that clients reach")
    return Finding("ok", subject, f"{told}, and that works from here")
