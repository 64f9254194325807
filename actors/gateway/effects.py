"""What the broker's shell tells the gateway, and what the gateway asks of the shell beside `actors/actor.py`.

Owns: names and fields, nothing else. The bodies of mail are tuples, because one is made for every request.
A frame is one Kafka request or answer without its length prefix; which door it came through, Kafka TCP or
ZeroMQ, is the shell's matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from msgspec import Struct

from zafka.actors.actor import Peer
from zafka.transport.arena import Slice

Buffer = bytes | bytearray | memoryview

SHELL = Peer("shell", 0)
"""The sender of the mail below."""


# -- mail from the shell ---------------------------------------------------------------------------


class ConnectionOpened(NamedTuple):
    """listener: name of the listener in the topology. peer: the client's address, for logs."""

    connection_id: int
    listener: str
    peer: str


class FramesReceived(NamedTuple):
    """Frames of any connections, in the order in which they came: connection id, frame, slice.

    A frame stays as it is for as long as anybody holds it. slice: where it lies in the arena, held once for us."""

    frames: list[tuple[int, memoryview, Slice | None]]


class ConnectionClosed(NamedTuple):
    connection_id: int


class AnswersBlocked(NamedTuple):
    """The client does not take its answers (more than a buffer's worth waits in the socket), or takes them again."""

    connection_id: int
    blocked: bool


class WayAsked(NamedTuple):
    """A client of a ZeroMQ door wants to hand batches straight to this partition."""

    connection_id: int
    topic: str
    partition: int


class ReadFault(Enum):
    """Why a slice was not read."""

    GONE = "no such file, or another one under its name"
    CORRUPT = "a batch whose CRC does not fit"
    UNREADABLE = "it cannot be opened or read"


class FilesRead(NamedTuple):
    """parts: what `ReadFiles(token)` asked for, one for each slice, shorter at the end of a file."""

    token: int
    parts: Sequence[Buffer | ReadFault]


# -- effects ---------------------------------------------------------------------------------------


class Respond(NamedTuple):
    """Write these answers to a connection, in this order. Each frame is a list of buffers."""

    connection_id: int
    frames: list[Sequence[Buffer]]


class CloseConnection(Struct, frozen=True):
    """Close after what was written before, or at_once; the reason is logged. `ConnectionClosed` follows."""

    connection_id: int
    reason: str
    at_once: bool = False


class PauseReading(Struct, frozen=True):
    """Take no more frames from this connection for now: it has too much unanswered."""

    connection_id: int


class ResumeReading(Struct, frozen=True):
    connection_id: int


class FileSlice(NamedTuple):
    """inode: of the file that was meant; another file under the same name is `ReadFault.GONE`.
    cold: read in a thread and check each batch's CRC."""

    path: str
    inode: int
    position: int
    length: int
    cold: bool


class ReadFiles(NamedTuple):
    token: int
    slices: list[FileSlice]


class TellWay(NamedTuple):
    """Answer `WayAsked`: which incarnation leads the partition, in which epoch; both -1 if it does not serve now."""

    asked: WayAsked
    incarnation: int = -1
    leader_epoch: int = -1


class OpenDoors(Struct, frozen=True):
    """Take clients in from now on; until then their connections wait in the listeners' backlog."""


class CloseDoors(Struct, frozen=True):
    """Take no more clients in, read no more requests; what is being answered still goes out."""


class RemoveDirectory(Struct, frozen=True):
    """Unlink a directory with all that is in it, out of the way of requests; not there is fine."""

    path: Path
