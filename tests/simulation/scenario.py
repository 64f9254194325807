"""What a seed means: the cluster, its topics and configuration, the clients, the faults, and how the run ends.

Owns: `Scenario` and `draw`. Scenarios are small and differ: many short runs see more than one long one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from msgspec import structs

from tests.simulation.faults import KINDS, Fault, draw_faults
from tests.simulation.members import SETTINGS as GROUP_SETTINGS
from zafka.actors.coordinator import SNAPSHOT_RECORDS_KEY
from zafka.actors.gateway.group_relay import GROUP_TOPIC
from zafka.runtime.settings import BrokerSettings, SupervisionSettings, TopicSettings, TreeSettings

SAFETY, LIVENESS = "safety", "liveness"
ADMIN_TOPIC = "churn"
COMPACTED_TOPIC = "keys"
GROUP_PARTITIONS = 2


@dataclass
class Scenario:
    """mode: liveness: after `faults_s` everything heals, and must come to its end; safety: it is cut off there.

    producers: (topic, kind) of each; consumers, samplers: topics. last_fault: the end of a safety run. admin_rounds: 0 for no admin.
    deletes: topic whose records are deleted, "" for none. key_readers: of the compacted topic, if there is one.
    committers, members: how many clients commit offsets by hand, and are members of one group. rolling: of another one,
        which is rolled between the protocols. cooperating: of one whose members keep what they have while they join; modern_share:
        of their lives that speak KIP-848. statics: static members of one more. forgetting: clients that delete what they committed.
    flush_s: how long a flush of the disk may take; a slow one leaves much unflushed for a fault to hit.
    request_s: how long producers wait for an answer; a short time has them send again while the first is under way.
    """

    seed: int
    mode: str
    faults_s: float
    settings: TreeSettings
    faults: list[Fault]
    producers: list[tuple[str, str]] = field(default_factory=list)
    consumers: list[str] = field(default_factory=list)
    samplers: list[str] = field(default_factory=list)
    batches: int = 12
    pause_s: float = 0.1
    admin_rounds: int = 0
    deletes: str = ""
    key_readers: int = 0
    committers: int = 0
    members: int = 0
    rolling: int = 0
    cooperating: int = 0
    modern_share: float = 0.0
    statics: int = 0
    forgetting: int = 0
    last_fault: str = ""
    flush_s: float = 0.004
    request_s: float = 4.0

    @property
    def topics(self) -> dict[str, TopicSettings]:
        return {topic.name: topic for topic in self.settings.topics}

    @property
    def is_compacted(self) -> bool:
        return COMPACTED_TOPIC in self.topics


STATIC_SEEDS, FORGETTING_SEEDS, ROLLING_SEEDS, COOPERATING_SEEDS = 1, 3, 5, 7  # the rest, divided by eight


def draw(seed: int, *, direct: bool = False) -> Scenario:
    """direct: idempotent producers write past the broker; a seed is the same run without it as ever."""
    random = Random(f"{seed}/scenario")
    fsync = random.choices(("always", "interval", "os"), (10, 1, 1))[0]
    broker_ids = (1, 2) if random.random() < 0.15 else (1,)
    topics = _draw_topics(random)
    admin_rounds = random.choice((0, 0, 2, 4))
    faults_s = random.choice((2.0, 4.0, 6.0))
    groups = Random(f"{seed}/groups")
    committers, members = groups.choice((0, 0, 1, 3)), groups.choice((0, 0, 2, 3))
    # In a stream of its own, for some seeds, so that the others mean what they did before there was KIP-848.
    rolling = Random(f"{seed}/rolling").choice((2, 3)) if seed % 8 == ROLLING_SEEDS else 0
    cooperation = Random(f"{seed}/cooperating")
    cooperating = cooperation.choice((2, 3)) if seed % 8 == COOPERATING_SEEDS else 0
    statics = Random(f"{seed}/static").choice((2, 3)) if seed % 8 == STATIC_SEEDS else 0
    forgetting = Random(f"{seed}/forgetting").choice((1, 2)) if seed % 8 == FORGETTING_SEEDS else 0
    arena_bytes = Random(f"{seed}/arena").choice((0, 700, 3000, 1 << 16))  # the small ones are exhausted now and then
    names = _names(broker_ids, topics, admin_rounds)
    compacted = _draw_compacted(Random(f"{seed}/compacts")) if seed % 4 == 0 else None
    if compacted is not None:
        names += [f"cleaner {broker_ids[0]}", f"partition {COMPACTED_TOPIC}-0"] * 3
    if committers or members or rolling or cooperating or statics or forgetting:
        names += [f"partition {GROUP_TOPIC}-{index}" for index in range(GROUP_PARTITIONS)] * 2
    scenario = Scenario(
        seed, random.choice((SAFETY, LIVENESS)), faults_s, _draw_settings(random, fsync, broker_ids, topics, arena_bytes),
        _draw_faults(random, names, fsync, faults_s), admin_rounds=admin_rounds,
        batches=random.choice((4, 8, 14)), pause_s=faults_s / 14)
    for _ in range(random.choice((1, 1, 2, 3))):
        kind = random.choices(("idempotent", "impatient", "plain", "retrying", "acks=0"), (6, 2, 1, 1, 1))[0]
        scenario.producers.append((random.choice(topics).name, "direct" if direct and kind == "idempotent" else kind))
    scenario.consumers = [random.choice(topics).name for _ in range(random.choice((0, 1, 1, 2)))]
    scenario.samplers = [topics[-1].name] if random.random() < 0.3 else []
    scenario.last_fault = random.choice(("", "cut" if fsync == "always" else "root", "root"))
    scenario.flush_s = random.choice((0.004, 0.004, 0.06, 0.4))
    scenario.request_s = random.choice((4.0, 4.0, 0.2))
    scenario.committers, scenario.members, scenario.rolling = committers, members, rolling
    scenario.cooperating, scenario.modern_share = cooperating, cooperation.choice((0.0, 0.0, 0.5))
    scenario.statics, scenario.forgetting = statics, forgetting
    if len(topics) > 1 and Random(f"{seed}/deletes").random() < 0.5:
        scenario.deletes = topics[-1].name  # retention takes from it, too
    snapshot_records = Random(f"{seed}/snapshots").choice((0, 0, 1, 3, 10))
    if snapshot_records and (committers or members or statics or forgetting):
        settings = scenario.settings
        scenario.settings = structs.replace(
            settings, defaults={**settings.defaults, "internal.snapshot.records": str(snapshot_records)})
    of_cluster = Random(f"{seed}/the cluster's snapshots").choice((0, 0, 0, 1, 3, 10))
    if of_cluster:
        settings = scenario.settings
        scenario.settings = structs.replace(
            settings, defaults={**settings.defaults, SNAPSHOT_RECORDS_KEY: str(of_cluster)})
    if compacted is not None:
        settings = scenario.settings
        compacted = structs.replace(compacted, config={**compacted.config, **_draw_deleting(Random(f"{seed}/deleting"))})
        scenario.settings = structs.replace(settings, topics=(*topics, compacted), defaults={**settings.defaults, **_CLEANER})
        scenario.key_readers = Random(f"{seed}/key readers").choice((0, 1, 2))
    return scenario


_CLEANER = {"log.cleaner.backoff.ms": "150", "log.cleaner.io.max.bytes.per.second": "30000", "log.cleaner.dedupe.buffer.size": "1024"}


def _draw_compacted(random: Random) -> TopicSettings:
    """In a stream of its own, for one seed in four, so that the others mean what they did before there was compaction."""
    config = {
        "cleanup.policy": "compact", "min.cleanable.dirty.ratio": random.choice(("0.01", "0.4")),
        "delete.retention.ms": random.choice(("0", "0", "400", "1500", "86400000")),
    }
    return TopicSettings(name=COMPACTED_TOPIC, partitions=1, replication_factor=1, config=config)


def _draw_deleting(random: Random) -> dict[str, str]:
    """What makes a compacted topic delete as well, or nothing; in a stream of its own again."""
    if random.random() < 0.6:
        return {}
    return {
        "cleanup.policy": "compact,delete", "retention.bytes": str(random.choice((600, 1500, 4000))),
        "file.delete.delay.ms": "300"}


def _draw_topics(random: Random) -> tuple[TopicSettings, ...]:
    topics = [TopicSettings(name="orders", partitions=random.choice((1, 1, 2)), replication_factor=1, config={})]
    if random.random() < 0.4:
        config = {
            "retention.bytes": str(random.choice((600, 1500, 4000))), "file.delete.delay.ms": "300",
            "message.timestamp.type": random.choice(("CreateTime", "LogAppendTime")),
        }
        topics.append(TopicSettings(name="recent", partitions=1, replication_factor=1, config=config))
    return tuple(topics)


def _draw_settings(
    random: Random, fsync: str, broker_ids: tuple[int, ...], topics: tuple[TopicSettings, ...], arena_bytes: int
) -> TreeSettings:
    defaults = {
        "shared.memory.bytes": str(arena_bytes), "num.partitions": "1", "default.replication.factor": "1", "auto.create.topics.enable": "false",
        **GROUP_SETTINGS, "offsets.topic.num.partitions": str(GROUP_PARTITIONS), "fsync": fsync, "flush.ms": "200", "index.interval.bytes": str(random.choice((0, 200, 4096))),
        "log.retention.check.interval.ms": "400", "message.timestamp.after.max.ms": str(10**12),
        "internal.segment.bytes": str(random.choice((700, 1200, 2500, 1 << 20))),
        "internal.checkpoint.bytes": str(random.choice((300, 2000, 1 << 20))),
        "internal.checkpoint.batches": str(random.choice((3, 10, 1000))),
    }
    supervision = SupervisionSettings(
        strategy=random.choices(("one_for_one", "one_for_all", "rest_for_one"), (8, 1, 1))[0],
        heartbeat_s=1.0, hung_after_s=4.0, backoff_max_s=0.5)
    return TreeSettings(
        cluster="simulated", data_dir=Path("/data"), brokers=tuple(BrokerSettings(id=i) for i in broker_ids),
        defaults=defaults, topics=topics, supervision=supervision)


def _names(broker_ids: tuple[int, ...], topics: tuple[TopicSettings, ...], admin_rounds: int) -> list[str]:
    """Whom faults may hit; partitions more often than others."""
    partitions = [f"partition {topic.name}-{index}" for topic in topics for index in range(topic.partitions)]
    if admin_rounds:
        partitions.append(f"partition {ADMIN_TOPIC}-0")
    return ["coordinator", *(f"broker {i}" for i in broker_ids), *partitions, *partitions]


def _draw_faults(random: Random, names: list[str], fsync: str, faults_s: float) -> list[Fault]:
    kinds = list(KINDS)
    if fsync != "always":
        # What the page cache has not given to the disk may be lost with the power, and only then.
        kinds = [kind for kind in kinds if kind not in ("cut", "cut-at", "kill-cut", "flush")]
    few = random.sample(kinds, random.randrange(2, len(kinds)))
    return draw_faults(random, names, few, random.choice((0, 2, 4, 7, 12)), faults_s)
