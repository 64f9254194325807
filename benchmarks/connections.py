"""Thousands of connections from one process: some write a few records a second each, the others wait for news.

    python -m benchmarks.connections HOST:PORT EVENTS NEWS --producers 1000 --readers 1000 --seconds 120

Raw sockets and epoll, requests encoded beforehand. Each producer writes `per_s` records a second to the topic EVENTS, whatever
was answered yet; `news_per_s` of all records go to NEWS, for whose next record the readers long-poll, all at the end of
one of its partitions. Told: the time from a request to its acknowledgement, and from a record's sending to each reader's hands.
Owns: the sockets. A connection that ends is counted and stays away; so is every error code, and an answer out of turn.
Invariant: nothing waits but `epoll`; how late requests left by the generator's own fault is told beside (`late_p99_ms`).
"""

from __future__ import annotations

import argparse
import json
import select
import socket
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.connection_frames import HELLO, LENGTH, FetchFrame, ProduceFrame, batches, correlation_of, error_of
from zafka.runtime.bench import percentile
from zafka.runtime.limits import raise_descriptor_limit

READ_BYTES = 1 << 18
EVENTS_MAX, NEWS_MAX = 512, 8
CONNECT_S = 30.0
SETTLING_S = 2.0  # the first seconds warm both sides up
ENDING_S = 5.0  # what is on its way at the end may take as long
CONNECTED, GO = "connected", "go"


@dataclass(frozen=True)
class Load:
    producers: int = 1000
    readers: int = 1000
    per_s: float = 5.0
    news_per_s: float = 8.0
    partitions: int = 4
    max_wait_ms: int = 500

    def arguments(self) -> list[str]:
        """As the command takes them."""
        return [f"--{name.replace('_', '-')}={value}" for name, value in asdict(self).items()]

    @property
    def rate_per_s(self) -> float:
        return self.producers * self.per_s

    def is_news(self, number: int) -> bool:
        """Whether record `number` of all is one for the readers: evenly among the others."""
        share = self.news_per_s / self.rate_per_s
        return int((number + 1) * share) > int(number * share)


class Tally:
    """What all connections saw. Times are taken while `measuring`; faults are counted from the beginning."""

    def __init__(self) -> None:
        self.measuring = False
        self.ack_s: list[float] = []
        self.delivery_s: list[float] = []
        self.late_s: list[float] = []
        self.fetches = 0
        self.faults: Counter[str] = Counter()


class Peer:
    """One connection. `expected`: the correlation ids that answers are due for, and when each request left."""

    def __init__(self, address: tuple[str, int], tally: Tally) -> None:
        self.socket = socket.create_connection(address, timeout=CONNECT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Like every client it asks for versions first. It also paces us: the listeners' backlogs are short.
        self.socket.sendall(HELLO)
        size = LENGTH.unpack(self.socket.recv(LENGTH.size, socket.MSG_WAITALL))[0]
        self.socket.recv(size, socket.MSG_WAITALL)
        self.socket.setblocking(False)
        self.tally = tally
        self.expected: deque[tuple[int, float]] = deque()
        self.alive = True
        self._correlation = 0
        self._rest = bytearray()

    def next_correlation(self, now_s: float) -> int:
        self._correlation = (self._correlation + 1) & 0x7FFFFFFF
        self.expected.append((self._correlation, now_s))
        return self._correlation

    def send(self, frame: bytes) -> None:
        """Some 200 bytes, for which a socket has room unless nobody reads at its other end."""
        try:
            if self.socket.send(frame) < len(frame):
                self.end("disconnect: the broker takes no requests")
        except OSError as error:
            self.end(f"disconnect: {error.strerror}")

    def on_event(self, now_s: float) -> None:
        try:
            data = self.socket.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self.end(f"disconnect: {error.strerror}")
            return
        if not data:
            self.end("disconnect: closed by the broker")
            return
        self._rest += data
        for answer in self._whole():
            correlation, sent_s = self.expected.popleft() if self.expected else (-1, now_s)
            if correlation_of(answer) != correlation:
                self.end(f"answer {correlation_of(answer)} instead of {correlation}")
                return
            self.on_answer(answer, sent_s, now_s)

    def _whole(self) -> Iterator[bytes]:
        position, rest = 0, self._rest
        while len(rest) >= position + LENGTH.size:
            stop = position + LENGTH.size + LENGTH.unpack_from(rest, position)[0]
            if stop > len(rest):
                break
            yield bytes(rest[position:stop])
            position = stop
        del rest[:position]

    def on_answer(self, answer: bytes, sent_s: float, now_s: float) -> None:
        raise NotImplementedError

    def end(self, fault: str = "") -> None:
        if fault:
            self.tally.faults[fault] += 1
        self.alive = False
        self.socket.close()


class Producer(Peer):
    def __init__(self, address: tuple[str, int], tally: Tally, events: ProduceFrame, news: ProduceFrame) -> None:
        super().__init__(address, tally)
        self._events, self._news = events, news
        self._error_at: deque[int] = deque()

    def produce(self, now_s: float, *, news: bool) -> None:
        frame = self._news if news else self._events
        self._error_at.append(frame.error_at)
        self.send(frame.stamped(self.next_correlation(now_s), now_s))

    def on_answer(self, answer: bytes, sent_s: float, now_s: float) -> None:
        error = error_of(answer, self._error_at.popleft())
        if error:
            self.tally.faults[f"produce: error {error}"] += 1
        elif self.tally.measuring:
            self.tally.ack_s.append(now_s - sent_s)


class Reader(Peer):
    """A long poll at the end of one partition, and the next one as soon as it is answered."""

    def __init__(self, address: tuple[str, int], tally: Tally, frame: FetchFrame, sent_at: int) -> None:
        super().__init__(address, tally)
        self._frame = frame
        self._sent_at = sent_at
        self._offset = 0

    def poll(self, now_s: float) -> None:
        self.send(self._frame.stamped(self.next_correlation(now_s), self._offset))

    def on_answer(self, answer: bytes, sent_s: float, now_s: float) -> None:
        error = error_of(answer, self._frame.error_at)
        if error:
            self.tally.faults[f"fetch: error {error}"] += 1
        offset, sent = batches(answer, self._frame.records_at, self._sent_at)
        if offset >= 0:
            if offset != self._offset + len(sent):  # each batch is one record
                self.tally.faults["fetch: a record is missing or came twice"] += 1
            self._offset = offset
        if self.tally.measuring:
            self.tally.fetches += 1
            self.tally.delivery_s += [now_s - each for each in sent]
        self.poll(now_s)


class Generator:
    """All connections, and the clock that says when which of the producers writes."""

    def __init__(self, address: str, events: str, news: str, load: Load) -> None:
        host, _, port = address.rpartition(":")
        where = host, int(port)
        self.load = load
        self.tally = Tally()
        partitions = range(load.partitions)
        to_events = [ProduceFrame(events, partition) for partition in partitions]
        to_news = [ProduceFrame(news, partition) for partition in partitions]
        polls = [FetchFrame(news, partition, max_wait_ms=load.max_wait_ms) for partition in partitions]
        self.producers = [
            Producer(where, self.tally, to_events[number % load.partitions], to_news[number % load.partitions])
            for number in range(load.producers)]
        self.readers = [
            Reader(where, self.tally, polls[number % load.partitions], to_news[0].sent_at) for number in range(load.readers)]
        self._peers: dict[int, Peer] = {peer.socket.fileno(): peer for peer in [*self.producers, *self.readers]}
        self._acks, self._news = _epoll(self.producers), _epoll(self.readers)
        self._any = select.epoll()
        for each in (self._acks, self._news):
            self._any.register(each.fileno(), select.EPOLLIN)
        self._sent = 0
        self._begun_s = 0.0

    def run(self, seconds: float) -> dict[str, Any]:
        """The load for `seconds` behind the settling time; what was seen of it."""
        self._begun_s = time.perf_counter()
        for reader in self.readers:
            reader.poll(self._begun_s)
        self._go_on(self._begun_s + SETTLING_S)
        self.tally.measuring = True
        started_s, cpu_s = time.perf_counter(), time.process_time()
        self._go_on(started_s + seconds)
        elapsed_s, used_s = time.perf_counter() - started_s, time.process_time() - cpu_s
        self.tally.measuring = False
        self._finish()
        return self._told(elapsed_s, used_s)

    def _go_on(self, until_s: float) -> None:
        while (now_s := time.perf_counter()) < until_s:
            self._write(now_s)
            due_s = self._begun_s + self._sent / self.load.rate_per_s
            self._read(min(due_s, until_s) - time.perf_counter())

    def _write(self, now_s: float) -> None:
        """Whatever is due by now, each producer in its turn."""
        load, begun_s = self.load, self._begun_s
        while (due_s := begun_s + self._sent / load.rate_per_s) <= now_s:
            producer = self.producers[self._sent % load.producers]
            sent_s = time.perf_counter()
            if producer.alive:
                producer.produce(sent_s, news=load.is_news(self._sent))
            if self.tally.measuring:
                self.tally.late_s.append(sent_s - due_s)
            self._sent += 1

    def _read(self, wait_s: float) -> None:
        """Acknowledgements first: to see a piece of news come to hundreds of readers must not make them look late."""
        if not self._any.poll(max(0.0, wait_s)):
            return
        for epoll, at_most in ((self._acks, EVENTS_MAX), (self._news, NEWS_MAX)):
            for descriptor, _ in epoll.poll(0, at_most):
                peer = self._peers[descriptor]
                peer.on_event(time.perf_counter())
                if not peer.alive:
                    del self._peers[descriptor]

    def _finish(self) -> None:
        """Wait for the acknowledgements that are due; those that never come are faults."""
        deadline_s = time.perf_counter() + ENDING_S
        while time.perf_counter() < deadline_s and any(each.expected for each in self.producers if each.alive):
            self._read(0.05)
        missing = sum(len(each.expected) for each in self.producers if each.alive)
        if missing:
            self.tally.faults["produce: no answer"] += missing
        for peer in self._peers.values():
            peer.end()
        for epoll in (self._any, self._acks, self._news):
            epoll.close()

    def _told(self, elapsed_s: float, used_s: float) -> dict[str, Any]:
        tally = self.tally
        return {
            **asdict(self.load), "seconds": elapsed_s, "acks_per_s": len(tally.ack_s) / elapsed_s,
            "fetches_per_s": tally.fetches / elapsed_s, "deliveries_per_s": len(tally.delivery_s) / elapsed_s,
            **_percentiles("ack", tally.ack_s), **_percentiles("delivery", tally.delivery_s),
            **_percentiles("late", tally.late_s), "generator_cpu": used_s / elapsed_s, "faults": dict(tally.faults)}


def _epoll(peers: Sequence[Peer]) -> select.epoll:
    epoll = select.epoll()
    for peer in peers:
        epoll.register(peer.socket.fileno(), select.EPOLLIN)
    return epoll


def _percentiles(name: str, taken_s: list[float]) -> dict[str, float]:
    ordered = sorted(taken_s)
    shares = (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)) if ordered else ()
    return {f"{name}_{label}_ms": percentile(ordered, share) * 1e3 for label, share in shares}


def start(process: subprocess.Popen[str]) -> None:
    """Let a generator that waits (`--wait`) begin."""
    assert process.stdin is not None
    process.stdin.write(f"{GO}\n")
    process.stdin.flush()


def told(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What a generator has seen, once it has."""
    found: dict[str, Any] = json.loads(process.communicate()[0])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("events")
    parser.add_argument("news")
    parser.add_argument("--producers", type=int, default=Load.producers)
    parser.add_argument("--readers", type=int, default=Load.readers)
    parser.add_argument("--per-s", type=float, default=Load.per_s)
    parser.add_argument("--news-per-s", type=float, default=Load.news_per_s)
    parser.add_argument("--partitions", type=int, default=Load.partitions)
    parser.add_argument("--max-wait-ms", type=int, default=Load.max_wait_ms)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--wait", action="store_true", help=f"say {CONNECTED!r} when all are, and wait for a line on stdin")
    given = parser.parse_args()
    raise_descriptor_limit()
    load = Load(
        given.producers, given.readers, given.per_s, given.news_per_s, given.partitions, given.max_wait_ms)
    generator = Generator(given.address, given.events, given.news, load)
    if given.wait:
        print(CONNECTED, flush=True)
        sys.stdin.readline()
    print(json.dumps(generator.run(given.seconds)))


if __name__ == "__main__":
    main()
