"""A topic is deleted and created again under its name, and everything dies between any two steps of that.

DESIGN section 3: "Deleting a topic: commit, stop the replicas, rename the directory to `<topic>-<partition>.<id>-delete`,
answer, unlink later." RELIABILITY, faults 7; invariant 2. The new topic never shows a record of the old one.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.scenarios.test_one_broker import batch, produce, read_all
from tests.scenarios.world import BROKER, COORDINATOR, World
from zafka.storage.directory import read_topic_id
from zafka.transport.kafka import messages as kafka
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode

CREATE = kafka.CreateTopicsRequest([kafka.CreatableTopic("t", 1, 1)], 30_000)
DELETE = kafka.DeleteTopicsRequest([kafka.DeleteTopicState("t")], timeout_ms=30_000)


def turns(world: World, count: int) -> bool:
    """Let this many actors have a turn; False once nobody has mail."""
    for _ in range(count):
        ready = [each for each in world.processes.values() if each.mail]
        if not ready:
            return False
        world._turn(ready[0])
    return True


def die(world: World, who: str, start: int) -> World:
    """Kill one actor, or all; then everything comes to rest."""
    if who != "everything":
        if who in world.processes:
            world.kill(who)
        world.run()
        return world
    for name in list(world.processes):
        world.kill(name, restart=False)
    return World(world.data_dir, first_incarnation=start).up()


def settle(world: World, request: Any, api: ApiKey, version: int, allowed: tuple[int, ...]) -> None:
    """What was under way has happened or not; asked again it has."""
    answer = world.client().ask(api, version, request)
    results = answer.topics if api is ApiKey.CREATE_TOPICS else answer.responses
    assert results[0].error_code in allowed, ErrorCode(results[0].error_code)


@pytest.mark.parametrize("who", [BROKER, COORDINATOR, "partition t-0", "everything"])
def test_whatever_dies_when_the_new_topic_begins_empty_and_with_its_own_id(tmp_path: Path, who: str) -> None:
    under_way = True
    count = 0
    while under_way:
        world = World(tmp_path / str(count)).up()
        client = world.client()
        client.ask(ApiKey.CREATE_TOPICS, 7, CREATE)
        assert produce(client, batch(b"old", b"older"), topic="t") == (0, 0)
        directory = world.data_dir / "broker-1" / "t-0"
        old_id = read_topic_id(world.disk, directory)

        client.send(ApiKey.DELETE_TOPICS, 6, DELETE)
        deleting = turns(world, count)
        world = die(world, who, 100)
        settle(world, DELETE, ApiKey.DELETE_TOPICS, 6, (0, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION))
        assert not directory.exists() or read_topic_id(world.disk, directory) != old_id

        world.client().send(ApiKey.CREATE_TOPICS, 7, CREATE)
        creating = turns(world, count)
        world = die(world, who, 200)
        settle(world, CREATE, ApiKey.CREATE_TOPICS, 7, (0, ErrorCode.TOPIC_ALREADY_EXISTS))

        client = world.client()
        assert produce(client, batch(b"new"), topic="t") == (0, 0)
        assert read_all(client, topic="t") == [(0, b"new")]
        assert read_topic_id(world.disk, directory) not in (None, old_id)
        again = die(world, "everything", 300)
        assert read_all(again.client(), topic="t") == [(0, b"new")]
        under_way = deleting or creating
        count += 1
    assert count > 5


def test_a_rename_that_a_power_cut_took_back_is_done_again_before_the_new_topic_starts(tmp_path: Path) -> None:
    world = World(tmp_path).up()
    client = world.client()
    client.ask(ApiKey.CREATE_TOPICS, 7, CREATE)
    produce(client, batch(b"old"), topic="t")
    directory = world.data_dir / "broker-1" / "t-0"
    client.ask(ApiKey.DELETE_TOPICS, 6, DELETE)
    (moved,) = world.removed
    world.kill(BROKER, restart=False)
    moved.rename(directory)
    shutil.rmtree(moved, ignore_errors=True)
    world.start(BROKER)
    world.run()
    client = world.client()
    client.ask(ApiKey.CREATE_TOPICS, 7, CREATE)
    assert produce(client, batch(b"new"), topic="t") == (0, 0)
    assert read_all(client, topic="t") == [(0, b"new")]
