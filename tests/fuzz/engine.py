"""The fuzzing engine: valid input from a grammar, mutated, at a decoder, under a watch.

Owns: `Decoder`, what is fuzzed; `mutate`; `attempt`, one execution with its bounds; `Campaign`, many of them.
An input is a list of parts (frames of a message, files of a directory, one buffer): mutations hit parts, and the list.
A finding is: an exception that the decoder does not name (an AssertionError included: `run` asserts what must hold),
more CPU time than `seconds_max` (an endless loop is interrupted), or more memory than the input's size allows.
Invariant: the same decoder, seed and execution number give the same input. Time is CPU time: a busy machine changes nothing.
"""

from __future__ import annotations

import signal
import struct
import time
import traceback
import tracemalloc
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import FrameType

import msgspec

Parts = list[bytes]

CORPUS = Path(__file__).parent / "corpus"
POOL = 24  # valid inputs that mutations start from; one is replaced every few executions
MEMORY_EVERY = 16  # executions; tracing makes one several times slower
PART_BYTES_MAX = 1 << 20  # repeated parts do not grow beyond
_MAGIC = b"\xff" * 9

# What a stranger would put where a length, a count or a number is expected.
HOSTILE = [
    b"\xff\xff\xff\xff\x0f", b"\xff\xff\xff\xff\x07", b"\x80\x80\x80\x80\x00", _MAGIC, b"\x7f\xff\xff\xff", b"\x7f\xff",
    b"\x80\x00\x00\x00", b"\xff\xff\xff\xff", b"\xff\xff\xff\xfe", b"\xff\xff", b"\x80\x00", b"\x00", b"\xff\x01",
    b"\x7f" + b"\xff" * 7, b"\x80" + b"\x00" * 7, b"\x80" * 12, b"\xfe\xff\xff\xff\x0f", b"\x00" * 8, b"\xff" * 64,
]  # fmt: skip


@dataclass(frozen=True)
class Decoder:
    """One reader of outside bytes.

    make: valid input from a seed. run: reads it; what it may raise is `allowed`, and it asserts what must hold else.
    words: bytes that mean something to this decoder, strewn in. seal: makes checksums and lengths right again, so that
        damage gets past them; used for half of the inputs.
    memory_max: bytes that one execution may take at most, beside `memory_per_byte` for each of the input.
    """

    name: str
    make: Callable[[Random], Parts]
    run: Callable[[Parts], None]
    allowed: tuple[type[BaseException], ...] = ()
    words: Sequence[bytes] = ()
    seal: Callable[[Parts], Parts] | None = None
    seconds_max: float = 2.0
    memory_max: int = 4 << 20
    memory_per_byte: int = 400

    def __repr__(self) -> str:
        return f"<Decoder {self.name}>"


class TooSlow(BaseException):
    """Raised into whatever runs when its CPU time is used up. Not an Exception: nobody catches it on the way."""


@dataclass(frozen=True)
class Finding:
    """kind: "raised", "slow" or "memory"; two findings with the same `place` are one."""

    decoder: str
    kind: str
    place: str
    detail: str
    parts: Parts

    @property
    def text(self) -> str:
        return f"{self.decoder}: {self.kind} at {self.place}: {self.detail}"


# -- mutation -----------------------------------------------------------------------------------------


def mutate(parts: Parts, other: Parts, rng: Random, words: Sequence[bytes] = ()) -> Parts:
    """Parts like these with something wrong; `other` is what is spliced in."""
    mutated = list(parts)
    if len(mutated) > 1 and rng.random() < 0.15:
        _mutate_list(mutated, other, rng)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 8))):
        if mutated:
            index = rng.randrange(len(mutated))
            donor = rng.choice(other) if other else b""
            mutated[index] = mutate_bytes(mutated[index], donor, rng, words)
    return mutated


def _mutate_list(parts: Parts, other: Parts, rng: Random) -> None:
    index = rng.randrange(len(parts))
    match rng.randrange(4):
        case 0:
            del parts[index]
        case 1:
            parts.insert(index, parts[rng.randrange(len(parts))])
        case 2:
            parts[index] = b""
        case _ if other:
            parts[index] = rng.choice(other)


def mutate_bytes(data: bytes, donor: bytes, rng: Random, words: Sequence[bytes]) -> bytes:
    mutated = bytearray(data)
    position, end = sorted(rng.randrange(len(mutated) + 1) for _ in range(2))
    match rng.randrange(11):
        case 0 | 1 if mutated:
            mutated[position % len(mutated)] ^= 1 << rng.randrange(8)
        case 2 if mutated:
            mutated[position % len(mutated)] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        case 3:
            hostile = rng.choice(HOSTILE)
            mutated[position : position + len(hostile)] = hostile
        case 4:
            mutated[position:position] = rng.choice(HOSTILE)
        case 5:
            del mutated[position : min(end, position + rng.choice((1, 4, 50, 5000)))]
        case 6:
            del mutated[position:]
        case 7:  # a part of it many times
            piece = bytes(mutated[position : min(end, position + rng.choice((1, 8, 200)))])
            times = rng.choice((1, 1, 3, 100, 10_000))
            mutated[position:position] = piece * min(times, PART_BYTES_MAX // max(len(piece), 1))
        case 8 if len(mutated) >= 4:  # a length, four bytes big-endian, that is a little wrong
            at = rng.randrange(len(mutated) - 3)
            (number,) = struct.unpack_from(">i", mutated, at)
            struct.pack_into(">i", mutated, at, (number + rng.choice((-1, 1, 4, -12)) + 2**31) % 2**32 - 2**31)
        case 9 if words:
            word = rng.choice(words)
            mutated[position : rng.choice((position, position, end))] = word
        case _:
            mutated[position:] = donor[rng.randrange(len(donor) + 1) :]
    return bytes(mutated[: 4 * PART_BYTES_MAX])


# -- one execution ------------------------------------------------------------------------------------


@contextmanager
def cpu_limit(seconds: float) -> Iterator[None]:
    """Raise TooSlow into the block when it has used so much CPU time. Main thread only."""

    def on_signal(number: int, frame: FrameType | None) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGPROF, on_signal)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def attempt(decoder: Decoder, parts: Parts, *, memory: bool = False) -> tuple[bool, Finding | None]:
    """Run the decoder on one input. Returns whether it took it, and what went wrong beyond what may."""
    size = sum(map(len, parts))
    taken = False
    if memory:
        tracemalloc.start()
    try:
        # Twice the bound, and five times with tracing: a decoder that ends by itself is measured, not interrupted.
        with cpu_limit(decoder.seconds_max * (10 if memory else 2)):
            began_s = time.process_time()
            try:
                decoder.run(parts)
                taken = True
            except decoder.allowed:
                pass
            took_s = time.process_time() - began_s
        peak = tracemalloc.get_traced_memory()[1] if memory else 0
    except TooSlow as error:
        return False, Finding(decoder.name, "slow", _place(error), "did not end", parts)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return False, Finding(decoder.name, "raised", _place(error), f"{type(error).__name__}: {error!s:.200}", parts)
    finally:
        if memory:
            tracemalloc.stop()
    if not memory and took_s > decoder.seconds_max:
        return taken, Finding(decoder.name, "slow", "its end", f"{took_s:.1f} s of CPU for {size} bytes", parts)
    allowed = decoder.memory_max + decoder.memory_per_byte * size
    if peak > allowed:
        detail = f"{peak} bytes for an input of {size}; {allowed} are allowed"
        return taken, Finding(decoder.name, "memory", "its end", detail, parts)
    return taken, None


def _place(error: BaseException) -> str:
    """The innermost frame of our own code."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "site-packages" not in frame.filename]
    if not frames:
        return "?"
    ours = [frame for frame in frames if "/tests/" not in frame.filename] or frames
    return f"{Path(ours[-1].filename).parent.name}/{Path(ours[-1].filename).name}:{ours[-1].lineno}"


# -- many executions ----------------------------------------------------------------------------------


@dataclass
class Campaign:
    """Executions of one decoder from one seed. findings: the first of each place."""

    decoder: Decoder
    seed: int
    executions: int = 0
    taken: int = 0
    findings: dict[tuple[str, str], Finding] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rng = Random(f"{self.seed} {self.decoder.name}")
        self.pool: deque[Parts] = deque((self.decoder.make(self.rng) for _ in range(4)), maxlen=POOL)

    def step(self) -> Parts:
        """The next input; every twentieth is valid."""
        rng, decoder = self.rng, self.decoder
        if self.executions % 10 == 0:
            self.pool.append(decoder.make(rng))
        parts = rng.choice(self.pool)
        if self.executions % 20:
            parts = mutate(parts, rng.choice(self.pool), rng, decoder.words)
            if decoder.seal is not None and rng.random() < 0.5:
                parts = decoder.seal(parts)
        self.executions += 1
        return parts

    def run(self, cpu_s: float, *, executions_max: int | None = None) -> None:
        """Go on until so much CPU time is used, or so often."""
        end_s = time.process_time() + cpu_s
        while time.process_time() < end_s and (executions_max is None or self.executions < executions_max):
            parts = self.step()
            taken, finding = attempt(self.decoder, parts, memory=self.executions % MEMORY_EVERY == 0)
            self.taken += taken
            if finding is not None:
                self.findings.setdefault((finding.kind, finding.place), finding)


# -- the corpus: inputs that were findings once -------------------------------------------------------


def save(finding: Finding, name: str, folder: Path = CORPUS) -> Path:
    path = folder / finding.decoder.replace(" ", "-") / f"{name}.msgpack"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.msgpack.encode(finding.parts))
    return path


def load(path: Path) -> Parts:
    return msgspec.msgpack.decode(path.read_bytes(), type=Parts)


def corpus_of(decoder: Decoder, folder: Path = CORPUS) -> list[Path]:
    return sorted((folder / decoder.name.replace(" ", "-")).glob("*.msgpack"))


def shrink(decoder: Decoder, finding: Finding, attempts_max: int = 400) -> Finding:
    """A smaller input with the same finding, by leaving out pieces; the finding itself if there is none."""
    best, tried, piece = finding, 0, max(map(len, finding.parts), default=0) // 2
    if finding.kind != "raised":
        return finding
    while piece and tried < attempts_max:
        smaller = False
        for index, part in enumerate(best.parts):
            for position in range(0, len(part), piece):
                if tried >= attempts_max:
                    break
                tried += 1
                parts = [*best.parts]
                parts[index] = part[:position] + part[position + piece :]
                found = attempt(decoder, parts)[1]
                if found is not None and (found.kind, found.place) == (best.kind, best.place):
                    best, smaller = found, True
                    break
        if not smaller:
            piece //= 2
    return best
