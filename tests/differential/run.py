"""Sends cases to both brokers and collects how the answers differ.

Owns: the order of things. Each request is answered by ours, then by Kafka, before the next goes out, so both go through the
same states. May fail with NotComparable if a request that only prepares others is refused by one of them.
"""

from __future__ import annotations

import random
import threading
import time
from typing import Any

import msgspec

from tests.differential import recorded
from tests.differential.cases import Bytes, Call, Case, Late, create, metadata
from tests.differential.compare import Difference, compare
from tests.differential.data_cases import FILL, TOPICS, UNKNOWN_ID
from tests.differential.generated import UNKNOWN_TAGS, generate, tags_of
from tests.differential.group_requests import CHOSEN
from tests.differential.sides import NotComparable, Side, must, resolve
from tests.differential.wire import Outcome
from zafka.transport.kafka import messages as kafka
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.codec import request_writer

READY_S = 60.0
GENERATED = 8  # requests per version
RETRIABLE = (3, 5, 6, 7, 14, 15)
# What is asked for here Kafka's broker may not know of yet when it has answered the change. A difference that stays is one.
KNOWN_LATER = (ApiKey.DESCRIBE_CLIENT_QUOTAS, ApiKey.DESCRIBE_USER_SCRAM_CREDENTIALS)
KNOWN_S = 5.0
Sides = tuple[Side, Side]


def prepare(sides: Sides) -> None:
    """The topics that the cases are about, with the same batches in both."""
    for side in sides:
        side.names |= {member_id: member_id for member_id in CHOSEN}
        answer = must(ask(side, Call(create(*TOPICS)), 7))
        assert {each.error_code for each in answer.topics} == {0}, answer
        epoch = _wait_until_all_lead(side, [topic.name for topic in TOPICS])
        side.saved["epoch"], side.saved["older epoch"] = epoch, epoch - 1
        side.learn_topic_ids()
        side.saved["id of unknown"], side.saved["id of "] = UNKNOWN_ID, bytes(16)
        for call in FILL:
            _insist(side, call)
    # Internal topics are made when somebody first asks for a coordinator. Ours has none of transactions.
    for side in sides:
        _insist(side, Call(kafka.FindCoordinatorRequest("first", 0), 2))
    _insist(sides[1], Call(kafka.FindCoordinatorRequest("first", 1), 2))


def _insist(side: Side, call: Call, version: int = -1) -> None:
    """Until it goes well: a partition may have a leader in Metadata before it takes records. Or until it goes as it is to."""
    deadline_s = time.monotonic() + READY_S
    wanted = call.until or 0
    while (codes := error_codes(answer := must(ask(side, call, version)))) != {wanted}:
        if time.monotonic() > deadline_s:
            raise NotComparable(f"{side.name}: {answer}")
        assert codes <= {0, *RETRIABLE, wanted}, answer
        threading.Event().wait(0.02)


def error_codes(value: Any) -> set[int]:
    """All that an answer has, at any depth."""
    if isinstance(value, list):
        return {code for element in value for code in error_codes(element)}
    if not isinstance(value, msgspec.Struct):
        return set()
    own = {value.error_code} if hasattr(value, "error_code") else set()
    return own | {code for name in value.__struct_fields__ for code in error_codes(getattr(value, name))}


def _wait_until_all_lead(side: Side, names: list[str]) -> int:
    """The leader epoch of the first partition, when all of them answer. Kafka tells of a leader before it does lead."""
    deadline_s = time.monotonic() + READY_S
    while time.monotonic() < deadline_s:
        told = must(side.wire.ask(ApiKey.METADATA, 12, metadata(*names))).topics
        offsets = kafka.ListOffsetsRequest(-1, 0, [kafka.ListOffsetsTopic(topic.name, [
            kafka.ListOffsetsPartition(each.partition_index, timestamp=-1) for each in topic.partitions]) for topic in told])
        answer = must(side.wire.ask(ApiKey.LIST_OFFSETS, 5, offsets))
        if error_codes(told) == {0} and error_codes(answer.topics) == {0}:
            return int(answer.topics[0].partitions[0].leader_epoch)
        threading.Event().wait(0.02)
    raise NotComparable(f"{side.name}: not every partition of {names} leads after {READY_S} s")


def _wait_until_gone(side: Side, names: set[str]) -> None:
    deadline_s = time.monotonic() + READY_S
    while names & {topic.name for topic in must(side.wire.ask(ApiKey.METADATA, 12, kafka.MetadataRequest(None))).topics}:
        if time.monotonic() > deadline_s:
            raise NotComparable(f"{side.name}: {names} are still there after {READY_S} s")
        threading.Event().wait(0.02)


def ask(side: Side, call: Call, version: int) -> Outcome:
    """version: of the case."""
    outcome = side.on(call.on).ask(call.key, at(call, version), resolve(call.body, side, version), is_answered=call.is_answered)
    keep(side, call, outcome)
    return outcome


def at(call: Call, version: int) -> int:
    """version: of the case."""
    return version if call.version is None else call.version


def keep(side: Side, call: Call | Late, outcome: Outcome) -> None:
    if call.save is not None:
        name, field = call.save
        side.save(name, getattr(must(outcome), field))


def run_generated(key: ApiKey, seed: int, sides: Sides) -> list[Difference]:
    """A few requests made from the schema at every version."""
    found: list[Difference] = []
    for version in common_versions(key, sides):
        rng = random.Random(f"{seed} {key.name} {version}")
        for number in range(GENERATED):
            request = generate(key, version, rng)
            outcomes = [_ask_tagged(side, key, version, request) for side in sides]
            title = f"generated {number} with seed {seed}"
            found += [
                each._replace(where=f"{each.where} of {request}")
                for each in compare(title, key, version, (outcomes[0], outcomes[1]), sides)]
    return found


def _ask_tagged(side: Side, key: ApiKey, version: int, request: Any) -> Outcome:
    body = b"".join(bytes(part) for part in request_writer(key, version)(resolve(request, side, version)))
    if tags := tags_of(key, version):
        assert body[-1] == 0
        body = body[:-1] + tags
    return side.wire.ask_bytes(key, version, body, tags=UNKNOWN_TAGS)


def run_recorded(sides: Sides) -> list[Difference]:
    """What real clients asked for, in their order; what one of the two does not serve is left out."""
    topics, requests = recorded.load()
    found: list[Difference] = []
    for each in requests:
        if each.version in common_versions(each.api, sides):
            outcomes = [_replay(side, each, topics) for side in sides]
            found += compare(f"recorded from {each.client}", each.api, each.version, (outcomes[0], outcomes[1]), sides)
    return found


def _replay(side: Side, asked: recorded.Recorded, topics: dict[bytes, str]) -> Outcome:
    body = recorded.write(asked, recorded.translate(asked.request, side, topics)) + recorded.rest(asked)
    outcome = side.wire.ask_bytes(asked.api, asked.version, body)
    if given := recorded.GIVEN.get(ApiKey(asked.api)):
        side.save(f"recorded {asked.api} {asked.gave}", getattr(must(outcome), given))
    if asked.api == ApiKey.CONSUMER_GROUP_HEARTBEAT:  # a KIP-848 member chooses its id, and is told its epoch
        side.saved[f"epoch of {asked.request.member_id}"] = must(outcome).member_epoch
    if asked.api in (ApiKey.CREATE_TOPICS, ApiKey.CREATE_PARTITIONS):
        _wait_until_all_lead(side, [topic.name for topic in asked.request.topics])
        side.learn_topic_ids()
    if asked.api == ApiKey.DELETE_TOPICS:
        _wait_until_gone(side, {*asked.request.topic_names, *(topic.name for topic in asked.request.topics)})
    return outcome


def run_bytes(strange: Bytes, sides: Sides) -> list[Difference]:
    """Only whether there is an answer: it may have no layout."""
    ours, theirs = (side.wire.is_answered(strange.key, strange.version, strange.body) for side in sides)
    if ours == theirs:
        return []
    return [Difference("(any)", strange.version, strange.title, "(answer)", "", ours, theirs)]


def common_versions(key: int, sides: Sides) -> range:
    """What both say they serve; Produce 0 to 2 are told and refused by both."""
    ours, theirs = (side.advertised.get(key, range(0)) for side in sides)
    if not ours or not theirs:
        return range(0)
    return range(max(ours.start, theirs.start, 3 if key == ApiKey.PRODUCE else 0), min(ours.stop, theirs.stop))


def run(case: Case, sides: Sides) -> list[Difference]:
    found: list[Difference] = []
    versions = common_versions(case.key, sides)
    for version in range(max(versions.start, case.versions.start), min(versions.stop, case.versions.stop)):
        found += run_at(case, version, sides)
    return found


def run_at(case: Case, version: int, sides: Sides) -> list[Difference]:
    found: list[Difference] = []
    waiting: dict[str, Call] = {}  # by connection
    for number, call in enumerate(case.calls, 1):
        if isinstance(call, Late):
            asked = waiting.pop(call.on)
            outcomes = [side.on(call.on).answer() for side in sides]
            for side, outcome in zip(sides, outcomes, strict=True):
                keep(side, call, outcome)
        elif call.waits:
            waiting[call.on] = call
            for side in sides:
                side.on(call.on).send(call.key, at(call, version), resolve(call.body, side, version))
            continue
        elif call.until is not None:
            for side in sides:
                _insist(side, call, version)
            continue
        else:
            asked = call
            outcomes = [ask(side, call, version) for side in sides]
        found += [
            each._replace(where=f"call {number}: {each.where}")
            for each in _compare_when_known(case.title, asked, version, (outcomes[0], outcomes[1]), sides)]
    assert not waiting, f"{case.title}: {waiting}"
    return found


def _compare_when_known(title: str, asked: Call, version: int, outcomes: tuple[Outcome, Outcome], sides: Sides) -> list[Difference]:
    deadline_s = time.monotonic() + KNOWN_S
    ours, theirs = outcomes
    while True:
        found = compare(title, asked.key, at(asked, version), (ours, theirs), sides)
        is_known_later = asked.is_known_later or asked.key in KNOWN_LATER
        if not found or not is_known_later or time.monotonic() > deadline_s:
            return found
        threading.Event().wait(0.02)
        theirs = ask(sides[1], asked, version)
