"""Requests and answers over one connection: versions, correlation, timeouts.

Owns: what is outstanding at one broker listener. Lives in the I/O thread.
Invariant: every request that `send` accepted ends in exactly one call of its `on_answer`, with a message or an error.
Source: KIP-35, KIP-511 (ApiVersions), KIP-482 (flexible versions).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from zafka.client.addresses import Address
from zafka.client.connection import NOT_KAFKA, DoorConnection, connect
from zafka.client.errors import ConnectionLost, NotSupportedYet, RequestTimedOut, ZafkaError
from zafka.client.io_thread import IoThread
from zafka.client.version import VERSION
from zafka.transport.direct import Told
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.codec import (
    MalformedMessage,
    read_response_header,
    request_header,
    request_writer,
    response_reader,
)
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages import ApiVersionsRequest, ApiVersionsResponse

CLIENT_SOFTWARE = "zafka"

# Versions that this client speaks: below topic ids, which brokers need not have.
OUR_VERSIONS: dict[ApiKey, tuple[int, int]] = {
    ApiKey.PRODUCE: (3, 11),
    ApiKey.FETCH: (4, 12),
    ApiKey.LIST_OFFSETS: (1, 7),
    ApiKey.METADATA: (4, 12),
    ApiKey.API_VERSIONS: (0, 3),
    ApiKey.CREATE_TOPICS: (2, 7),
    ApiKey.DELETE_TOPICS: (1, 5),
    ApiKey.INIT_PRODUCER_ID: (0, 4),
    ApiKey.DESCRIBE_CONFIGS: (1, 4),
    ApiKey.CREATE_PARTITIONS: (0, 3),
    ApiKey.DELETE_RECORDS: (0, 2),
    ApiKey.INCREMENTAL_ALTER_CONFIGS: (0, 1),
    ApiKey.CONSUMER_GROUP_HEARTBEAT: (0, 1),
    ApiKey.CONSUMER_GROUP_DESCRIBE: (0, 1),
    ApiKey.FIND_COORDINATOR: (0, 4),
    ApiKey.JOIN_GROUP: (1, 9),
    ApiKey.SYNC_GROUP: (0, 5),
    ApiKey.HEARTBEAT: (0, 4),
    ApiKey.LEAVE_GROUP: (0, 5),
    ApiKey.OFFSET_COMMIT: (2, 9),
    ApiKey.OFFSET_FETCH: (1, 9),
    ApiKey.LIST_GROUPS: (0, 5),
    ApiKey.DESCRIBE_GROUPS: (0, 5),
    ApiKey.DELETE_GROUPS: (0, 2),
    ApiKey.OFFSET_DELETE: (0, 0),
}

OnAnswer = Callable[[Any, ZafkaError | None], None]


class _Outstanding(NamedTuple):
    correlation_id: int
    api_key: ApiKey
    version: int
    deadline_s: float
    on_answer: OnAnswer


class Channel:
    """One broker listener, from connecting to the end. `ready` once versions are known.

    on_change: called when the channel became ready or closed. on_told: with answers to `ask_where`.
    """

    def __init__(
        self,
        io: IoThread,
        address: Address,
        *,
        client_id: str,
        connect_timeout_s: float,
        on_change: Callable[[], None],
        on_told: Callable[[Told], None],
    ) -> None:
        self.address = address
        self.ready = False
        self.closed = False
        self.reason = ""  # why it was closed
        self.was_open = False
        self._client_id = client_id
        self._on_change = on_change
        self.on_told = on_told
        self._connect_deadline_s = time.monotonic() + connect_timeout_s
        self._versions: dict[int, tuple[int, int]] = {}
        self._outstanding: deque[_Outstanding] = deque()
        self._next_correlation_id = 0
        self._connection = connect(io, address, self)

    def __repr__(self) -> str:
        state = "ready" if self.ready else f"closed: {self.reason}" if self.closed else "connecting"
        return f"<Channel {self.address} {state} outstanding={len(self._outstanding)}>"

    @property
    def outstanding(self) -> int:
        """Requests that wait for their answer."""
        return len(self._outstanding)

    # -- requests --------------------------------------------------------------------------------

    def version_of(self, api_key: ApiKey) -> int:
        """The highest version that both sides speak. Raises NotSupportedYet if there is none."""
        ours_min, ours_max = OUR_VERSIONS[api_key]
        theirs_min, theirs_max = self._versions.get(api_key, (0, -1))
        version = min(ours_max, theirs_max)
        if version < max(ours_min, theirs_min):
            theirs = f"{theirs_min}-{theirs_max}" if theirs_max >= 0 else "none"
            raise NotSupportedYet(
                f"broker {self.address} and this client have no version of {api_key.name} in common: "
                f"the broker has {theirs}, the client {ours_min}-{ours_max}"
            )
        return version

    def send(self, api_key: ApiKey, message: Any, on_answer: OnAnswer, timeout_s: float) -> None:
        """Send a request; `on_answer(message, None)` or `on_answer(None, error)` follows, perhaps at once."""
        try:
            version = self.version_of(api_key)
        except NotSupportedYet as error:
            on_answer(None, error)
            return
        self._send(api_key, version, message, on_answer, timeout_s)

    def send_without_answer(self, api_key: ApiKey, message: Any) -> None:
        """For Produce with acks=0. Raises NotSupportedYet."""
        version = self.version_of(api_key)
        self._write(api_key, version, message)

    def _send(self, api_key: ApiKey, version: int, message: Any, on_answer: OnAnswer, timeout_s: float) -> None:
        if self.closed:
            on_answer(None, ConnectionLost(f"broker {self.address}: {self.reason}"))
            return
        deadline_s = time.monotonic() + timeout_s
        self._outstanding.append(_Outstanding(self._next_correlation_id, api_key, version, deadline_s, on_answer))
        self._write(api_key, version, message)

    def _write(self, api_key: ApiKey, version: int, message: Any) -> None:
        header = request_header(api_key, version, self._next_correlation_id, self._client_id)
        self._next_correlation_id = (self._next_correlation_id + 1) & 0x7FFFFFFF
        self._connection.send([header, *request_writer(api_key, version)(message)])

    def ask_where(self, topic: str, partition: int) -> bool:
        """Ask for the way past the broker to a partition. False if this is not a ZeroMQ door, which alone knows."""
        if not isinstance(self._connection, DoorConnection):
            return False
        self._connection.ask_where(topic, partition)
        return True

    def close(self, reason: str) -> None:
        if not self.closed:
            self._connection.close(reason)

    def check(self, now_s: float) -> float:
        """Close if something took too long. Returns when to look again."""
        if self.closed:
            return float("inf")
        if not self.ready and now_s >= self._connect_deadline_s:
            self.close("no answer while connecting" if not self.was_open else "no answer to ApiVersions")
            return float("inf")
        deadline_s = float("inf") if self.ready else self._connect_deadline_s
        if self._outstanding:
            oldest = min(self._outstanding, key=lambda request: request.deadline_s)
            if now_s >= oldest.deadline_s:
                # Answers come in order, so what is behind this one would wait too.
                self.close(f"no answer to {oldest.api_key.name} in time")
                return float("inf")
            deadline_s = min(deadline_s, oldest.deadline_s)
        return deadline_s

    # -- the connection speaks -------------------------------------------------------------------

    def on_open(self) -> None:
        self.was_open = True
        self._ask_versions(OUR_VERSIONS[ApiKey.API_VERSIONS][1])

    def on_frame(self, frame: memoryview) -> None:
        if not self._outstanding:
            self.close("the broker answered what was not asked")
            return
        request = self._outstanding.popleft()
        try:
            correlation_id, position = read_response_header(frame, request.api_key, request.version)
            if correlation_id != request.correlation_id:
                raise MalformedMessage(f"answer {correlation_id} where {request.correlation_id} was due", 0)
            message = self._read_body(request, frame, position)
        except MalformedMessage as error:
            self._outstanding.appendleft(request)
            self.close(f"unreadable answer to {request.api_key.name} version {request.version}: {error}")
            return
        request.on_answer(message, None)

    def _read_body(self, request: _Outstanding, frame: memoryview, position: int) -> Any:
        if request.api_key == ApiKey.API_VERSIONS and request.version > 0:
            # A broker that does not know our version answers in the layout of version 0.
            error_code = int.from_bytes(frame[position : position + 2], "big", signed=True)
            if error_code == ErrorCode.UNSUPPORTED_VERSION:
                return response_reader(ApiKey.API_VERSIONS, 0)(frame, position)
        return response_reader(request.api_key, request.version)(frame, position)

    def on_closed(self, reason: str) -> None:
        if self.was_open and not self.ready and not self.address.is_zmq and NOT_KAFKA not in reason:
            # A ZeroMQ listener hangs up on what it cannot read, and so does one that wants TLS.
            reason += (f", before it told its versions; if this is a ZeroMQ door, write tcp://{self.address}; if it wants "
                       "TLS or SASL, that is not supported yet")
        self.closed = True
        self.ready = False
        self.reason = reason
        outstanding, self._outstanding = self._outstanding, deque()
        timed_out = reason.startswith("no answer")
        for request in outstanding:
            text = f"broker {self.address}: {reason}"
            request.on_answer(None, RequestTimedOut(text) if timed_out else ConnectionLost(text))
        self._on_change()

    # -- versions --------------------------------------------------------------------------------

    def _ask_versions(self, version: int) -> None:
        request = ApiVersionsRequest(client_software_name=CLIENT_SOFTWARE, client_software_version=VERSION)
        timeout_s = max(0.0, self._connect_deadline_s - time.monotonic())
        self._send(ApiKey.API_VERSIONS, version, request, self._on_versions, timeout_s)

    def _on_versions(self, answer: ApiVersionsResponse | None, error: ZafkaError | None) -> None:
        if answer is None or error is not None:
            return  # closed, and told by on_closed
        self._versions = {api.api_key: (api.min_version, api.max_version) for api in answer.api_keys}
        if answer.error_code == ErrorCode.UNSUPPORTED_VERSION:
            theirs = self._versions.get(ApiKey.API_VERSIONS, (0, 0))[1]
            self._ask_versions(max(0, min(theirs, OUR_VERSIONS[ApiKey.API_VERSIONS][1] - 1)))
        elif answer.error_code:
            self.close(f"ApiVersions was refused with error {answer.error_code}")
        else:
            self.ready = True
            self._on_change()
