"""The codec against kio's writer and reader, every API and version, both directions; and its refusals."""

from __future__ import annotations

import importlib
import random
import struct
import subprocess
import sys
from typing import Any

import pytest

from tests.kafka_oracle import every_layout, kio_class, kio_read, kio_write, ours, random_message
from zafka.transport.kafka import codec
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.codec import MalformedMessage, UnsupportedVersion
from zafka.transport.kafka.compile_reader import compile_reader
from zafka.transport.kafka.layout import load_api
from zafka.transport.kafka.messages import (
    FetchableTopicResponse,
    FetchRequest,
    FetchResponse,
    MetadataRequest,
    MetadataRequestTopic,
    PartitionProduceData,
    ProduceRequest,
    TopicProduceData,
)
from zafka.transport.kafka.messages.fetch import PartitionData

LAYOUTS = [pytest.param(*layout, id=f"{layout[0].name}-{layout[1]}-{layout[2]}") for layout in every_layout()]
SAMPLES = 12


def reader_of(kind: str, key: int, version: int) -> codec.Reader:
    return (codec.request_reader if kind == "request" else codec.response_reader)(key, version)


def writer_of(kind: str, key: int, version: int) -> codec.Writer:
    return (codec.request_writer if kind == "request" else codec.response_writer)(key, version)


@pytest.mark.parametrize(("key", "kind", "version"), LAYOUTS)
def test_both_directions_agree_with_kio(key: ApiKey, kind: str, version: int) -> None:
    kio_type, layout = kio_class(key, kind, version), getattr(load_api(key), kind)
    rng = random.Random(f"{key}{kind}{version}")
    for _ in range(SAMPLES):
        theirs = random_message(kio_type, rng)
        mine, encoded = ours(theirs, layout, key), kio_write(theirs)
        prefix = rng.randbytes(rng.randrange(20))  # a message does not begin where its frame does
        assert reader_of(kind, key, version)(memoryview(prefix + encoded), len(prefix)) == mine
        written = b"".join(writer_of(kind, key, version)(mine))
        assert written == encoded
        assert kio_read(kio_type, written) == theirs


@pytest.mark.parametrize(("key", "kind", "version"), LAYOUTS)
def test_every_message_of_defaults_survives(key: ApiKey, kind: str, version: int) -> None:
    module = importlib.import_module(f"zafka.transport.kafka.messages.{key.name.lower()}")
    message = getattr(module, getattr(load_api(key), kind).struct)()
    written = b"".join(writer_of(kind, key, version)(message))
    assert reader_of(kind, key, version)(memoryview(written), 0) == message


@pytest.mark.parametrize(("key", "kind", "version"), LAYOUTS)
def test_a_message_that_ends_too_early_is_malformed(key: ApiKey, kind: str, version: int) -> None:
    rng = random.Random(f"{key}{kind}{version}")
    encoded = kio_write(random_message(kio_class(key, kind, version), rng))
    read = reader_of(kind, key, version)
    for cut in {rng.randrange(len(encoded)) for _ in range(50)} if encoded else ():
        with pytest.raises(MalformedMessage):
            read(memoryview(encoded)[:cut], 0)


def test_bytes_behind_a_message_are_ignored() -> None:
    assert codec.request_reader(ApiKey.LIST_GROUPS, 0)(memoryview(b"more"), 0) is not None


def test_unknown_tagged_fields_are_skipped() -> None:
    tags = b"\x02" + b"\x05\x03abc" + b"\xc8\x01\x00"
    frame = memoryview(b"\x02" + b"\0" * 16 + b"\x02a" + tags + b"\x01\x00" + tags)
    message = codec.request_reader(ApiKey.METADATA, 12)(frame, 0)
    assert message == MetadataRequest([MetadataRequestTopic(name="a")], True, False, False)


def test_unknown_tagged_fields_beside_known_ones_are_skipped() -> None:
    known = b"".join(codec.request_writer(ApiKey.FETCH, 12)(FetchRequest(cluster_id="c")))
    assert known.endswith(b"\x01\x00\x02\x02c")  # one tagged field, number 0, two bytes
    frame = known.removesuffix(b"\x01\x00\x02\x02c") + b"\x03\x00\x02\x02c\x07\x01x\x08\x00"
    assert codec.request_reader(ApiKey.FETCH, 12)(memoryview(frame), 0).cluster_id == "c"


@pytest.mark.parametrize(
    "tags",
    [
        b"\x01\x00\x03\x02c",  # the tagged field is said to be longer than it is
        b"\x01\x00\x01\x02c",  # shorter
        b"\x01\x09\x7f",  # an unknown one that goes past the end
        b"\xff\xff\xff\xff\x0f",  # four billion of them
        b"\xff\xff\xff\xff\xff\x01",  # a number of six bytes
        b"\x02\x00\x02\x02c",  # fewer than announced
    ],
)
def test_broken_tagged_fields_are_malformed(tags: bytes) -> None:
    plain = b"".join(codec.request_writer(ApiKey.FETCH, 12)(FetchRequest()))
    with pytest.raises(MalformedMessage):
        codec.request_reader(ApiKey.FETCH, 12)(memoryview(plain[:-1] + tags), 0)


@pytest.mark.parametrize(
    ("key", "version", "body"),
    [
        (ApiKey.METADATA, 12, b"\xff\xff\xff\xff\x0f"),  # these five bytes abort kio's process
        (ApiKey.METADATA, 4, b"\x7f\xff\xff\xff"),
        (ApiKey.PRODUCE, 9, b"\x00\xff\xff\x00\x00\x00\x00\xff\xff\xff\xff\x0f"),
        (ApiKey.PRODUCE, 3, b"\xff\xff\xff\xff\x00\x00\x00\x00\x7f\xff\xff\xff"),
        (ApiKey.PRODUCE, 3, b"\xff\xff\xff\xff\x00\x00\x00\x00\xff\xff\xff\xff"),  # null, which it may not be
        (ApiKey.PRODUCE, 9, b"\x00\xff\xff\x00\x00\x00\x00\x00"),
        (ApiKey.FIND_COORDINATOR, 0, b"\x00\x02\xff\xfe"),  # not UTF-8
        (ApiKey.FIND_COORDINATOR, 0, b"\xff\xff"),
        (ApiKey.FIND_COORDINATOR, 0, b""),
    ],
)
def test_broken_requests_are_malformed(key: ApiKey, version: int, body: bytes) -> None:
    with pytest.raises(MalformedMessage):
        codec.request_reader(key, version)(memoryview(body), 0)


def test_the_number_of_elements_is_bounded_over_nested_arrays_and_tags() -> None:
    api = load_api(ApiKey.METADATA)
    read = compile_reader(api, 4, api.request, elements_max=10)
    write = codec.request_writer(ApiKey.METADATA, 4)

    def frame(topics: int) -> memoryview:
        return memoryview(b"".join(write(MetadataRequest([MetadataRequestTopic()] * topics))))

    assert len(read(frame(10), 0).topics) == 10
    with pytest.raises(MalformedMessage, match="too many"):
        read(frame(11), 0)
    read = compile_reader(api, 12, api.request, elements_max=10)
    assert read(memoryview(b"\x01\x00\x00\x0a" + b"\x09\x00" * 10), 0).topics == []
    with pytest.raises(MalformedMessage, match="too many"):
        read(memoryview(b"\x01\x00\x00\x0b" + b"\x09\x00" * 11), 0)
    fetch = load_api(ApiKey.FETCH)
    read = compile_reader(fetch, 4, fetch.response, elements_max=10)
    two_topics = FetchResponse(responses=[FetchableTopicResponse(partitions=[PartitionData()] * 5)] * 2)
    with pytest.raises(MalformedMessage, match="too many"):
        read(memoryview(b"".join(codec.response_writer(ApiKey.FETCH, 4)(two_topics))), 0)


@pytest.mark.parametrize("version", [3, 9, 13])
def test_records_are_neither_copied_on_reading_nor_on_writing(version: int) -> None:
    records = memoryview(b"0123456789")
    partitions = [PartitionProduceData(0, records), PartitionProduceData(1, None), PartitionProduceData(2, records)]
    chunks = codec.request_writer(ApiKey.PRODUCE, version)(
        ProduceRequest(topic_data=[TopicProduceData(partition_data=partitions)])
    )
    assert [chunk is records for chunk in chunks] == [False, True, False, True, False]
    frame = memoryview(b"".join(chunks))
    read = codec.request_reader(ApiKey.PRODUCE, version)(frame, 0).topic_data[0].partition_data
    assert [partition.records for partition in read] == [b"0123456789", None, b"0123456789"]
    assert read[0].records.obj is frame.obj


# -- headers and versions -----------------------------------------------------------------------------


@pytest.mark.parametrize("client_id", [None, "", "rdkafka", "ü" * 100])
@pytest.mark.parametrize("version", [8, 9])
def test_request_headers_go_there_and_back(client_id: str | None, version: int) -> None:
    header = codec.request_header(ApiKey.PRODUCE, version, 77, client_id)
    read = codec.read_request_header(memoryview(header + b"body"))
    assert read == codec.RequestHeader(ApiKey.PRODUCE, version, 77, client_id, len(header))
    assert len(header) == 10 + len((client_id or "").encode()) + (version == 9)


def test_tagged_fields_of_a_header_are_skipped() -> None:
    header = codec.request_header(ApiKey.PRODUCE, 9, 77, "c")[:-1] + b"\x01\x05\x02xy"
    assert codec.read_request_header(memoryview(header + b"body")).body_position == len(header)
    assert codec.read_response_header(memoryview(b"\0\0\0\x05" + b"\x01\x05\x02xy" + b"body"), ApiKey.PRODUCE, 9) == (
        5,
        9,
    )


def test_headers_of_unknown_apis_and_versions_are_read() -> None:
    for key, version in ((4711, 0), (-1, 3), (ApiKey.PRODUCE, 2), (ApiKey.PRODUCE, 999), (5, 1), (ApiKey.FETCH, -5)):
        frame = memoryview(struct.pack(">hhih", key, version, 1, -1) + b"\0")
        header = codec.read_request_header(frame)
        assert (header.api_key, header.version) == (key, version)


@pytest.mark.parametrize(
    "frame",
    [b"", b"\0" * 9, struct.pack(">hhih", 0, 3, 1, 5) + b"abcd", struct.pack(">hhih", 0, 3, 1, 1) + b"\xff",
     struct.pack(">hhih", 0, 9, 1, -1), struct.pack(">hhih", 0, 9, 1, -1) + b"\xff\xff\xff\xff\x0f",
     struct.pack(">hhih", 0, 9, 1, -1) + b"\x01\x00\x7f"],
)  # fmt: skip
def test_broken_request_headers_are_malformed(frame: bytes) -> None:
    with pytest.raises(MalformedMessage):
        codec.read_request_header(memoryview(frame))


def test_answers_to_api_versions_have_no_tagged_fields_in_their_header() -> None:
    assert codec.response_header(ApiKey.API_VERSIONS, 3, 7) == b"\0\0\0\x07"
    assert codec.response_header(ApiKey.PRODUCE, 9, 7) == b"\0\0\0\x07\0"
    assert codec.read_response_header(memoryview(b"\0\0\0\x07"), ApiKey.API_VERSIONS, 4) == (7, 4)


def test_a_frame_begins_with_its_length() -> None:
    chunks = codec.with_length(b"header", [b"ab", memoryview(b"cde")])
    assert b"".join(chunks) == b"\0\0\0\x0bheaderabcde"


@pytest.mark.parametrize(("key", "version"), [(ApiKey.PRODUCE, 2), (ApiKey.PRODUCE, 99), (4711, 0), (ApiKey.VOTE, 0)])
def test_a_layout_that_does_not_exist_is_refused(key: int, version: int) -> None:
    functions: list[Any] = [codec.request_reader, codec.request_writer, codec.response_reader, codec.response_writer]
    for function in functions:
        with pytest.raises(UnsupportedVersion):
            function(key, version)


def test_importing_the_codec_loads_no_layout_and_no_messages() -> None:
    script = (
        "import sys, zafka.transport.kafka.codec, zafka.transport.kafka.messages as m; from zafka.transport.kafka.layout "
        "import load_api; assert load_api.cache_info().misses == 0; m.ProduceRequest; "
        "print([name for name in sys.modules if 'kafka.messages.' in name or name.startswith('kio')])"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.strip() == "['zafka.transport.kafka.messages.produce']"
