"""Topic configuration: what is accepted, what is refused and with which words, what clients are told."""

from __future__ import annotations

import pytest

from zafka.storage import config
from zafka.storage.config import TOPIC_CONFIG, LogConfig, check_topic_config, describe_config, parse_config
from zafka.storage.errors import INVALID_CONFIG, InvalidConfig

# org.apache.kafka.storage.internals.log.LogConfig.configDefCopy() of Apache Kafka 4.3.1, without the internal ones.
KAFKA_DEFAULTS = {
    "cleanup.policy": "delete",
    "compression.gzip.level": "-1",
    "compression.lz4.level": "9",
    "compression.type": "producer",
    "compression.zstd.level": "3",
    "delete.retention.ms": "86400000",
    "file.delete.delay.ms": "60000",
    "flush.messages": "9223372036854775807",
    "flush.ms": "9223372036854775807",
    "follower.replication.throttled.replicas": "",
    "index.interval.bytes": "4096",
    "leader.replication.throttled.replicas": "",
    "local.retention.bytes": "-2",
    "local.retention.ms": "-2",
    "max.compaction.lag.ms": "9223372036854775807",
    "max.message.bytes": "1048588",
    "message.timestamp.after.max.ms": "3600000",
    "message.timestamp.before.max.ms": "9223372036854775807",
    "message.timestamp.type": "CreateTime",
    "min.cleanable.dirty.ratio": "0.5",
    "min.compaction.lag.ms": "0",
    "min.insync.replicas": "1",
    "preallocate": "false",
    "remote.log.copy.disable": "false",
    "remote.log.delete.on.disable": "false",
    "remote.storage.enable": "false",
    "retention.bytes": "-1",
    "retention.ms": "604800000",
    "segment.bytes": "1073741824",
    "segment.index.bytes": "10485760",
    "segment.jitter.ms": "0",
    "segment.ms": "604800000",
    "unclean.leader.election.enable": "false",
}
OURS = {"fsync": "always", "flush.ms": "1000"}


def test_keys_and_defaults_are_kafkas_but_for_two() -> None:
    assert {name: key.default for name, key in TOPIC_CONFIG.items()} == KAFKA_DEFAULTS | OURS


def test_keys_stand_in_the_order_of_their_names() -> None:
    assert list(TOPIC_CONFIG) == sorted(TOPIC_CONFIG)


def test_every_default_is_accepted_and_parses_to_the_default() -> None:
    defaults = {name: key.default for name, key in TOPIC_CONFIG.items()}
    check_topic_config(defaults)
    assert parse_config(defaults) == parse_config({}) == LogConfig()


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("retention.ms", "-1"),
        ("retention.ms", " 5000 "),
        ("retention.bytes", "-5"),
        ("segment.bytes", "1048576"),
        ("max.message.bytes", "0"),
        ("cleanup.policy", ""),
        ("fsync", "os"),
        ("message.timestamp.type", "LogAppendTime"),
        ("min.cleanable.dirty.ratio", "1"),
        ("unclean.leader.election.enable", "TRUE"),
        ("compression.gzip.level", "9"),
        ("flush.messages", "1"),
    ],
)
def test_accepted(key: str, text: str) -> None:
    check_topic_config({key: text})


@pytest.mark.parametrize(
    ("key", "text", "reason"),
    [
        ("retention.ms", "a week", "whole number"),
        ("retention.ms", "", "whole number"),
        ("retention.ms", "1_000", "whole number"),
        ("retention.ms", "१", "whole number"),
        ("retention.ms", "-2", "at least -1"),
        ("retention.ms", "9223372036854775808", "9223372036854775807"),
        ("segment.bytes", "1048575", "at least 1048576"),
        ("segment.bytes", "2147483648", "1048576 to 2147483647"),
        ("min.insync.replicas", "0", "at least 1"),
        ("fsync", "sometimes", "always or interval or os"),
        ("preallocate", "yes", "true or false"),
        ("min.cleanable.dirty.ratio", "nan", "0 to 1"),
        ("min.cleanable.dirty.ratio", "1.5", "0 to 1"),
        ("compression.gzip.level", "0", "-1 or 1"),
        ("message.timestamp.type", "createtime", "CreateTime or LogAppendTime"),
        ("cleanup.policy", "shred", "delete, compact"),
        ("compression.type", "zstd", "not supported yet; use producer"),
        ("compression.type", "brotli", "uncompressed or zstd"),
        ("remote.storage.enable", "true", "not supported yet; use false"),
        ("segment.jitter.ms", "100", "not supported yet; use 0"),
        ("leader.replication.throttled.replicas", "*", "not supported yet; use an empty value"),
    ],
)
def test_refused_with_what_would_be_right(key: str, text: str, reason: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        check_topic_config({key: text})
    assert caught.value.key == key
    assert reason in caught.value.reason
    assert str(caught.value).startswith(f"{key}: ")
    assert caught.value.kafka_error == INVALID_CONFIG


@pytest.mark.parametrize(
    ("key", "nearest"),
    [("retention.mss", "retention.ms"), ("retentions.bytes", "retention.bytes"), ("cleanup_policy", "cleanup.policy"),
     ("qqq", "")],
)  # fmt: skip
def test_unknown_key_is_refused_with_the_nearest_one(key: str, nearest: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        check_topic_config({key: "1"})
    assert caught.value.nearest == nearest
    assert ("did you mean" in str(caught.value)) == bool(nearest)


def test_compaction_lags_must_fit_each_other() -> None:
    check_topic_config({"min.compaction.lag.ms": "5", "max.compaction.lag.ms": "5"})
    with pytest.raises(InvalidConfig, match="more than max"):
        check_topic_config({"min.compaction.lag.ms": "6", "max.compaction.lag.ms": "5"})


def test_values_come_typed() -> None:
    texts = {"retention.ms": "5", "fsync": "interval", "message.timestamp.type": "LogAppendTime"}
    parsed = parse_config(texts | {"segment.bytes": "2000000"})
    assert parsed == LogConfig(
        retention_ms=5, fsync="interval", message_timestamp_type="LogAppendTime", segment_bytes=2_000_000
    )


def test_keys_that_are_not_for_a_partition_are_passed_over() -> None:
    assert parse_config({"num.partitions": "3", "preallocate": "false"}) == LogConfig()
    assert parse_config({"producer.id.expiration.ms": "1000"}).producer_id_expiration_ms == 1000


def test_the_active_segment_of_a_compacted_topic_ends_in_time_for_max_compaction_lag() -> None:
    config = {"segment.ms": "900", "max.compaction.lag.ms": "500"}
    assert parse_config(config).segment_ms == 900
    assert parse_config(config | {"cleanup.policy": "compact,delete"}).segment_ms == 500
    assert parse_config(config | {"cleanup.policy": "compact", "segment.ms": "400"}).segment_ms == 400


def test_a_value_that_cannot_be_is_refused_here_too() -> None:
    with pytest.raises(InvalidConfig):
        parse_config({"retention.ms": "x"})


def test_without_the_delete_policy_nothing_is_dropped() -> None:
    parsed = parse_config({"cleanup.policy": "", "retention.ms": "1", "retention.bytes": "1"})
    assert (parsed.retention_ms, parsed.retention_bytes) == (-1, -1)


def test_flush_messages_is_kept_by_flushing_every_append() -> None:
    assert parse_config({"flush.messages": "100", "fsync": "os"}).fsync == "always"


def test_description_says_where_each_value_comes_from() -> None:
    entries = describe_config(
        {"retention.ms": "1"}, {"retention.ms": "2", "segment.ms": "3", "num.partitions": "4"}
    )
    assert [entry.name for entry in entries] == list(TOPIC_CONFIG)
    told = {entry.name: entry for entry in entries}
    assert told["retention.ms"][:4] == ("retention.ms", "1", False, config.TOPIC_SOURCE)
    assert told["segment.ms"][:4] == ("segment.ms", "3", False, config.BROKER_SOURCE)
    assert told["segment.bytes"][:4] == ("segment.bytes", "1073741824", True, config.DEFAULT_SOURCE)
    assert {entry.type for entry in entries} == {1, 2, 3, 5, 6, 7}
    assert all(entry.documentation for entry in entries)


def test_what_only_tests_may_set_reaches_the_log_and_no_topic() -> None:
    internal = {"internal.segment.bytes": "700", "internal.checkpoint.bytes": "300", "internal.checkpoint.batches": "3"}
    config = parse_config({**internal, "segment.bytes": "2000000"})
    assert (config.segment_bytes, config.checkpoint_bytes, config.checkpoint_batches) == (700, 300, 3)
    for key, value in internal.items():
        with pytest.raises(InvalidConfig, match="no such topic configuration"):
            check_topic_config({key: value})
