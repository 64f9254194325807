"""Reads and writes Kafka's messages: a reader and a writer for each (API, version), compiled on first use.

Messages are the structs of `transport/kafka/messages/`. Bytes from outside raise MalformedMessage and nothing else;
what a reader allocates is bounded by the frame's size and by a number of elements (`compile_reader.py`).
A frame here is what stands behind the four bytes of its length: a header, then the message.

    write = response_writer(ApiKey.PRODUCE, 9)
    transport.writelines(with_length(response_header(ApiKey.PRODUCE, 9, correlation_id), write(response)))
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from struct import Struct, error

from msgspec import Struct as Message

from zafka.transport.kafka.api_keys import ApiKey, is_flexible
from zafka.transport.kafka.compile_reader import REQUEST_ELEMENTS_MAX, RESPONSE_ELEMENTS_MAX, compile_reader, skip_tags
from zafka.transport.kafka.compile_writer import compile_writer
from zafka.transport.kafka.layout import Api, load_api
from zafka.transport.kafka.types import Buffer, MalformedMessage, Reader, UnsupportedVersion, Writer

__all__ = [
    "Buffer", "MalformedMessage", "Reader", "RequestHeader", "UnsupportedVersion", "Writer", "read_request_header",
    "read_response_header", "request_header", "request_reader", "request_writer", "response_header", "response_reader",
    "response_writer", "supported_versions", "with_length",
]  # fmt: skip

_LENGTH = Struct(">i")
_REQUEST = Struct(">hhih")  # API key, version, correlation id, length of the client id or -1
_RESPONSE = Struct(">i")  # correlation id
_SKIPPED_TAGS_MAX = 1000


class RequestHeader(Message, frozen=True, gc=False):
    """body_position: where in the frame the message begins."""

    api_key: int
    version: int
    correlation_id: int
    client_id: str | None
    body_position: int


def read_request_header(frame: memoryview) -> RequestHeader:
    """The header of a request, also of an API or a version that has no layout. Raises MalformedMessage."""
    try:
        api_key, version, correlation_id, length = _REQUEST.unpack_from(frame, 0)
        position = _REQUEST.size
        client_id = None
        if length >= 0:
            end = position + length
            if end > len(frame):
                raise MalformedMessage("request header ends within the client id", len(frame))
            client_id = str(frame[position:end], "utf-8")
            position = end
        if is_flexible(api_key, version):
            position = _skip_header_tags(frame, position)
    except (error, IndexError):
        raise MalformedMessage("request header ends too early", len(frame)) from None
    except UnicodeDecodeError:
        raise MalformedMessage("the client id is not UTF-8", _REQUEST.size) from None
    return RequestHeader(api_key, version, correlation_id, client_id, position)


def read_response_header(frame: memoryview, api_key: int, version: int) -> tuple[int, int]:
    """Correlation id, and where the message begins. Raises MalformedMessage."""
    try:
        (correlation_id,) = _RESPONSE.unpack_from(frame, 0)
        position = _RESPONSE.size
        if _has_flexible_answer(api_key, version):
            position = _skip_header_tags(frame, position)
    except (error, IndexError):
        raise MalformedMessage("response header ends too early", len(frame)) from None
    return correlation_id, position


def request_header(api_key: int, version: int, correlation_id: int, client_id: str | None) -> bytes:
    name = b"" if client_id is None else client_id.encode()
    length = -1 if client_id is None else len(name)
    tags = b"\0" if is_flexible(api_key, version) else b""
    return _REQUEST.pack(api_key, version, correlation_id, length) + name + tags


def response_header(api_key: int, version: int, correlation_id: int) -> bytes:
    """An answer to ApiVersions never has tagged fields in its header, so that clients of any age can read it."""
    tags = b"\0" if _has_flexible_answer(api_key, version) else b""
    return _RESPONSE.pack(correlation_id) + tags


def with_length(header: bytes, body: Sequence[Buffer]) -> list[Buffer]:
    """A whole frame for TCP: length, header, message."""
    size = len(header) + sum(map(len, body))
    return [_LENGTH.pack(size) + header, *body]


def _has_flexible_answer(api_key: int, version: int) -> bool:
    return api_key != ApiKey.API_VERSIONS and is_flexible(api_key, version)


def _skip_header_tags(frame: memoryview, position: int) -> int:
    count = frame[position]
    if count == 0:
        return position + 1
    return skip_tags(frame, position + 1, count, _SKIPPED_TAGS_MAX)[0]


# -- messages: each raises UnsupportedVersion if there is no layout -----------------------------------


@cache
def request_reader(api_key: int, version: int) -> Reader:
    api = _api(api_key, version)
    return compile_reader(api, version, api.request, elements_max=REQUEST_ELEMENTS_MAX)


@cache
def response_reader(api_key: int, version: int) -> Reader:
    api = _api(api_key, version)
    return compile_reader(api, version, api.response, elements_max=RESPONSE_ELEMENTS_MAX)


@cache
def request_writer(api_key: int, version: int) -> Writer:
    api = _api(api_key, version)
    return compile_writer(api, version, api.request)


@cache
def response_writer(api_key: int, version: int) -> Writer:
    api = _api(api_key, version)
    return compile_writer(api, version, api.response)


def supported_versions(api_key: int) -> range:
    """The versions that the codec has; what is served is the gateway's matter."""
    first, last = load_api(api_key).versions
    return range(first, last + 1)


def _api(api_key: int, version: int) -> Api:
    api = load_api(api_key)
    if not api.versions[0] <= version <= api.versions[1]:
        raise UnsupportedVersion(api_key, version)
    return api
