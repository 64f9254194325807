"""The broker settings that the topology's `defaults` may hold beside topic configuration, by Kafka's names.

Owns: their names, default values and limits, and a word for the well-known ones that zafka does not have.
Values are text, as Kafka writes them. Pure.
"""

from __future__ import annotations

from typing import NamedTuple


class BrokerSetting(NamedTuple):
    """low and high bound a whole number; both -1: true or false. is_long: Kafka's type of it has 64 bits. is_double: it
    need not be whole. words: it is one of these, in any case."""

    default: str
    meaning: str
    low: int = -1
    high: int = -1
    is_long: bool = False
    is_double: bool = False
    words: tuple[str, ...] = ()


BROKER_SETTINGS = {
    "num.partitions": BrokerSetting("1", "partitions of a topic that is created without a number", 1, 10_000),
    "default.replication.factor": BrokerSetting("1", "replicas of such a topic's partitions", 1, 2**15 - 1),
    "auto.create.topics.enable": BrokerSetting("true", "a Kafka client's first use of a topic creates it"),
    "socket.request.max.bytes": BrokerSetting("104857600", "the largest request", 1024, 2**31 - 1),
    "queued.max.request.bytes": BrokerSetting(
        "268435456", "requests and answers of all connections that may wait", 1024 * 1024, 2**40, is_long=True),
    "fetch.max.bytes": BrokerSetting("57671680", "records in one answer to Fetch", 1024, 2**31 - 1),
    "max.request.partition.size.limit": BrokerSetting(
        "2000", "partitions in one answer to DescribeTopicPartitions", 1, 2**31 - 1),
    "max.incremental.fetch.session.cache.slots": BrokerSetting(
        "1000", "incremental fetch sessions of one broker", 0, 100_000),
    "shared.memory.bytes": BrokerSetting(
        "268435456", "room for large requests in memory that partitions map, taken as it is used; 0 for none", 0, 2**40),
    "max.connections": BrokerSetting("10000", "connections of one broker, both doors together", 1, 1_000_000),
    "connections.max.idle.ms": BrokerSetting(
        "600000", "how long a connection may be silent before it is ended", 1000, 2**31 - 1, is_long=True),
    "log.retention.check.interval.ms": BrokerSetting(
        "300000", "how often old segments are looked for", 100, 2**31 - 1, is_long=True),
    "log.cleaner.backoff.ms": BrokerSetting(
        "15000", "how often a compacted partition is looked at", 1, 2**31 - 1, is_long=True),
    "log.cleaner.dedupe.buffer.size": BrokerSetting(
        "134217728", "memory for keys in one pass of compaction", 1024, 2**40, is_long=True),
    "log.cleaner.io.max.bytes.per.second": BrokerSetting(
        "1.7976931348623157E308", "what compaction may read and write in a second", 1024, is_double=True),
    "producer.id.expiration.ms": BrokerSetting("86400000", "how long a silent producer is remembered", 1, 2**31 - 1),
    "offsets.topic.num.partitions": BrokerSetting(
        "4", "partitions of __consumer_offsets, each with a coordinator, when a first group creates it", 1, 10_000),
    "offsets.retention.minutes": BrokerSetting(
        "10080", "how long the offsets of a group without members are kept", 1, 2**31 - 1),
    "offsets.retention.check.interval.ms": BrokerSetting(
        "600000", "how often such offsets are looked for", 1, 2**31 - 1, is_long=True),
    "group.initial.rebalance.delay.ms": BrokerSetting(
        "3000", "how long the first member of a classic group waits for more", 0, 2**31 - 1),
    "group.min.session.timeout.ms": BrokerSetting("6000", "the shortest session of a classic group's member", 0, 2**31 - 1),
    "group.max.session.timeout.ms": BrokerSetting("1800000", "the longest such session", 1, 2**31 - 1),
    "group.max.size": BrokerSetting("2147483647", "members of a classic group", 1, 2**31 - 1),
    "group.consumer.session.timeout.ms": BrokerSetting(
        "45000", "a member of a KIP-848 group that is not heard of for so long is out", 1, 2**31 - 1),
    "group.consumer.heartbeat.interval.ms": BrokerSetting(
        "0", "how often such members come; 0: as 300 a second in all allow, 0.3 to 5 s", 0, 2**31 - 1),
    "group.consumer.min.session.timeout.ms": BrokerSetting("45000", "the shortest session that one group may have", 1, 2**31 - 1),
    "group.consumer.max.session.timeout.ms": BrokerSetting("60000", "the longest such session", 1, 2**31 - 1),
    "group.consumer.min.heartbeat.interval.ms": BrokerSetting(
        "300", "the shortest interval of heartbeats that one group may have", 1, 2**31 - 1),
    "group.consumer.max.heartbeat.interval.ms": BrokerSetting("15000", "the longest such interval", 1, 2**31 - 1),
    "group.consumer.min.assignment.interval.ms": BrokerSetting(
        "0", "the shortest time between assignments that one group may have", 0, 2**31 - 1),
    "group.consumer.max.assignment.interval.ms": BrokerSetting("15000", "the longest such time", 0, 2**31 - 1),
    "group.consumer.assignment.interval.ms": BrokerSetting(
        "0", "how long after one assignment of such a group the next one is made, at the soonest", 0, 2**31 - 1),
    "group.consumer.max.size": BrokerSetting("2147483647", "members that such a group may have", 1, 2**31 - 1),
    "group.consumer.migration.policy": BrokerSetting(
        "bidirectional", "which way groups may move between the protocols while members are in them",
        words=("disabled", "upgrade", "downgrade", "bidirectional")),
    "offset.metadata.max.bytes": BrokerSetting("4096", "the longest text that may be committed with an offset", 0, 2**31 - 1),
}

# Kafka's broker-wide names of what a topology says with the topic's own name.
TOPIC_NAMES = {
    "log.segment.bytes": "segment.bytes",
    "log.roll.ms": "segment.ms",
    "log.roll.hours": "segment.ms",
    "log.retention.ms": "retention.ms",
    "log.retention.minutes": "retention.ms",
    "log.retention.hours": "retention.ms",
    "log.retention.bytes": "retention.bytes",
    "log.cleanup.policy": "cleanup.policy",
    "log.flush.interval.ms": "flush.ms",
    "log.flush.interval.messages": "flush.messages",
    "log.index.interval.bytes": "index.interval.bytes",
    "log.message.timestamp.type": "message.timestamp.type",
    "message.max.bytes": "max.message.bytes",
    "log.cleaner.delete.retention.ms": "delete.retention.ms",
    "log.cleaner.max.compaction.lag.ms": "max.compaction.lag.ms",
    "log.cleaner.min.cleanable.ratio": "min.cleanable.dirty.ratio",
    "log.cleaner.min.compaction.lag.ms": "min.compaction.lag.ms",
}

# Topic key: the broker's key. Not here: what has the same name, and what brokers do not configure.
BROKER_NAMES = {
    "cleanup.policy": "log.cleanup.policy",
    "delete.retention.ms": "log.cleaner.delete.retention.ms",
    "file.delete.delay.ms": "log.segment.delete.delay.ms",
    "flush.messages": "log.flush.interval.messages",
    "flush.ms": "log.flush.interval.ms",
    "index.interval.bytes": "log.index.interval.bytes",
    "local.retention.bytes": "log.local.retention.bytes",
    "local.retention.ms": "log.local.retention.ms",
    "max.compaction.lag.ms": "log.cleaner.max.compaction.lag.ms",
    "max.message.bytes": "message.max.bytes",
    "message.timestamp.after.max.ms": "log.message.timestamp.after.max.ms",
    "message.timestamp.before.max.ms": "log.message.timestamp.before.max.ms",
    "message.timestamp.type": "log.message.timestamp.type",
    "min.cleanable.dirty.ratio": "log.cleaner.min.cleanable.ratio",
    "min.compaction.lag.ms": "log.cleaner.min.compaction.lag.ms",
    "preallocate": "log.preallocate",
    "retention.bytes": "log.retention.bytes",
    "retention.ms": "log.retention.ms",
    "segment.bytes": "log.segment.bytes",
    "segment.index.bytes": "log.index.size.max.bytes",
    "segment.jitter.ms": "log.roll.jitter.ms",
    "segment.ms": "log.roll.ms",
}
TOPIC_ONLY = frozenset((
    "follower.replication.throttled.replicas", "leader.replication.throttled.replicas", "remote.log.copy.disable",
    "remote.log.delete.on.disable", "remote.storage.enable"))

NOT_BUILT = ("log.cleaner.", "group.", "offsets.", "transaction.", "replica.", "quota.", "controller.", "broker.session.")


def check_broker_setting(key: str, text: str) -> str:
    """Why `key` cannot have this value, or ""."""
    setting = BROKER_SETTINGS[key]
    if setting.is_double:
        return _check_double(setting, text)
    if setting.words:
        return "" if text.lower() in setting.words else f"must be one of {', '.join(setting.words)}, not {text!r}"
    if setting.high < 0:
        return "" if text in ("true", "false") else f"must be true or false, not {text!r}"
    try:
        number = int(text)
    except ValueError:
        return f"must be a whole number, not {text!r}"
    if not setting.low <= number <= setting.high:
        return f"must be {setting.low} to {setting.high}, not {number}"
    return ""


def _check_double(setting: BrokerSetting, text: str) -> str:
    try:
        fits = float(text) >= setting.low
    except ValueError:
        fits = False
    return "" if fits else f"must be a number, at least {setting.low}, not {text!r}"


def kafka_setting_hint(key: str) -> str:
    """What to say of a setting that Kafka has and zafka does not, or ""."""
    if key in TOPIC_NAMES:
        return f"is written as {TOPIC_NAMES[key]!r} here"
    if key.startswith(NOT_BUILT):
        return "not supported yet; leave it out"
    return ""
