"""Apache Kafka's own ProducerPerformance and ConsumerPerformance as a load. May fail: RuntimeError with what the tool said."""

from __future__ import annotations

import re
import subprocess

from benchmarks.targets import KAFKA_LIB

SUMMARY = re.compile(r"(\d+) records sent, ([\d.]+) records/sec")


FETCHED = re.compile(r"^[^,]+, [^,]+, [\d.]+, [\d.]+, (\d+), [\d.]+, -?\d+, \d+, [\d.]+, ([\d.]+)$", re.MULTILINE)


def produce(bootstrap: str, topic: str, *, count: int, size_bytes: int) -> float:
    """Records a second of the whole run, as the tool counts them: its JVM warms up within."""
    done = subprocess.run(
        ["java", "-Xmx512m", "-cp", f"{KAFKA_LIB}/*", "org.apache.kafka.tools.ProducerPerformance", "--topic", topic,
         "--num-records", str(count), "--record-size", str(size_bytes), "--throughput", "-1", "--bootstrap-server",
         bootstrap, "--command-property", "acks=all", "linger.ms=5", "batch.size=1000000", "buffer.memory=200000000",
         "max.request.size=1040000"],
        capture_output=True, text=True, check=False, timeout=300)
    if done.returncode:
        raise RuntimeError(f"ProducerPerformance failed: {done.stderr[-2000:]}")
    return rate(done.stdout, count)


def rate(told: str, count: int) -> float:
    """Records a second in the tool's last line, which must account for all of them."""
    found = SUMMARY.findall(told)
    if not found or int(found[-1][0]) != count:
        raise RuntimeError(f"ProducerPerformance did not send {count} records: {told[-2000:]}")
    return float(found[-1][1])


def consume(bootstrap: str, topic: str, *, count: int) -> float:
    """Records a second once the group has settled, as the tool counts them."""
    done = subprocess.run(
        ["java", "-Xmx512m", "-cp", f"{KAFKA_LIB}/*", "org.apache.kafka.tools.ConsumerPerformance", "--topic", topic,
         "--num-records", str(count), "--bootstrap-server", bootstrap, "--timeout", "60000"],
        capture_output=True, text=True, check=False, timeout=300)
    if done.returncode:
        raise RuntimeError(f"ConsumerPerformance failed: {done.stderr[-2000:]}")
    return fetch_rate(done.stdout, count)


def fetch_rate(told: str, count: int) -> float:
    """Records a second in the tool's line, which must account for all of them."""
    found = FETCHED.findall(told)
    if not found or int(found[-1][0]) < count:
        raise RuntimeError(f"ConsumerPerformance did not read {count} records: {told[-2000:]}")
    return float(found[-1][1])
