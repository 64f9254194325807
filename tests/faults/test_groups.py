"""Two consumers become three become one under load, in both protocols, and groups change theirs, while any process is killed.

Each run draws an assignor of each client and protocol; `make groups` has them all, for as long as wanted.
"""

from __future__ import annotations

import os
import random
import shutil

import pytest
from confluent_kafka import ConsumerGroupType

from tests.clients.conftest import KAFKA_LIB, require
from tests.faults.groups.campaign import campaign
from tests.faults.groups.kinds import (
    AIOKAFKA,
    CLASSIC,
    JAVA,
    JAVA_848,
    KAFKA_PYTHON,
    LIBRDKAFKA_848,
    OURS,
    OURS_848,
    Mix,
)

SEED = int(os.environ.get("SEED", "0")) or random.randrange(1, 2**31)


@pytest.mark.timeout(480)
def test_two_become_three_become_one_whoever_is_killed() -> None:
    print(f"SEED={SEED}")
    choice = random.Random(SEED)
    kinds = [choice.choice(CLASSIC), choice.choice(LIBRDKAFKA_848), choice.choice(OURS), choice.choice(OURS_848)]
    with campaign(kinds, SEED) as run:
        run.join(2)
        run.join(1, may_crash=True)
        run.leave()
        run.crash()
        run.finish()
        print(run.told())
    assert run.problems == []
    assert run.killer.done.total() > 5 and run.load.acknowledged > 200


@pytest.mark.timeout(480)
def test_members_of_many_clients_are_rolled_to_the_other_protocol_and_back_whoever_is_killed() -> None:
    """Java's with `group.protocol` changed; kafka-python and aiokafka, which know the classic one only, beside librdkafka."""
    print(f"SEED={SEED}")
    require(shutil.which("javac") and any(KAFKA_LIB.glob("kafka-clients-*.jar")), "Java, or Apache Kafka's jars, are not there")
    mix = Mix("rolled", (JAVA["range"], KAFKA_PYTHON["range"], AIOKAFKA["range"]), (*LIBRDKAFKA_848, JAVA_848[0]))
    with campaign([mix], SEED) as run:
        run.replace(mix.classic)
        run.wait_until_of(ConsumerGroupType.CLASSIC)
        run.replace(mix.modern)
        run.wait_until_of(ConsumerGroupType.CONSUMER)
        run.replace(mix.classic)
        run.wait_until_of(ConsumerGroupType.CLASSIC)
        run.finish()
        print(run.told())
    assert run.problems == []
    assert run.killer.done.total() > 5 and run.load.acknowledged > 200
