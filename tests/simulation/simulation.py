"""One run: a scenario from its first event to its verdict.

Owns: `Simulation`, which puts machine, clients, faults and checks together. The end of a run heals
everything, has every partition read from its start to its end, and asks the history what does not hold.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from tests.history import History
from tests.key_ledger import Ledger
from tests.simulation.admins import Admin, Describer
from tests.simulation.checks import DATA
from tests.simulation.clients import Client
from tests.simulation.committers import Committer, GroupClient, Witness
from tests.simulation.compacted import KeyReader, KeyWriter
from tests.simulation.consumers import Consumer, FullReader, Sampler
from tests.simulation.cooperative import CooperativeMember
from tests.simulation.deleters import Deleter
from tests.simulation.direct import DirectProducer
from tests.simulation.engine import BEGIN_S, Engine, Violation
from tests.simulation.faults import KINDS, Fault
from tests.simulation.forgetters import Forgetter
from tests.simulation.machine import Machine
from tests.simulation.members import Group, GroupMember
from tests.simulation.producers import IdempotentProducer, PlainProducer, Producer
from tests.simulation.rolling import RollingGroup, RollingMember
from tests.simulation.scenario import (
    ADMIN_TOPIC,
    COMPACTED_TOPIC,
    GROUP_PARTITIONS,
    LIVENESS,
    SAFETY,
    Scenario,
)
from tests.simulation.statics import StaticMember
from zafka.actors.gateway.group_relay import GROUP_TOPIC, partition_of

LIVE_WITHIN_S = 60.0
READ_WITHIN_S = 60.0


class Result(NamedTuple):
    seed: int
    trace_hash: str
    violations: list[Violation]
    counts: Counter[str]
    virtual_s: float


class Simulation:
    def __init__(self, scenario: Scenario, tell: Callable[[str], None] | None = None) -> None:
        self.scenario = scenario
        self.engine = Engine(scenario.seed, tell)
        self.machine: Machine = Machine(self.engine, scenario.settings, scenario.flush_s)
        self.history = History()
        self.broker_ids = [broker.id for broker in scenario.settings.brokers]
        self.producers: list[Producer] = []
        self.clients: list[Client] = []
        self.deleted_before: dict[tuple[str, int], int] = {}  # where each partition begins at least, for good
        self._producer_ids: dict[tuple[int, int], str] = {}
        self._make_clients()

    def _make_clients(self) -> None:
        scenario = self.scenario
        for number, (topic, kind) in enumerate(scenario.producers):
            self.producers.append(self._make_producer(f"p{number}-{kind}", topic, kind))
        self.clients += self.producers
        for number, topic in enumerate(scenario.consumers):
            partitions = list(range(scenario.topics[topic].partitions))
            self.clients.append(Consumer(self, f"c{number}", topic, partitions))
        for number, topic in enumerate(scenario.samplers):
            partitions = list(range(scenario.topics[topic].partitions))
            self.clients.append(Sampler(self, f"s{number}", topic, partitions))
        for number in range(scenario.committers):
            self.clients.append(Committer(self, f"g{number}", "orders", scenario.batches, scenario.pause_s))
        for number in range(scenario.forgetting):
            self.clients.append(Forgetter(self, f"f{number}", "orders", scenario.batches, scenario.pause_s))
        group = Group("members", "orders", scenario.topics["orders"].partitions)
        self.clients += [GroupMember(self, f"m{number}", group) for number in range(scenario.members)]
        rolling = RollingGroup("rolling", "orders", scenario.topics["orders"].partitions)
        self.clients += [RollingMember(self, f"r{number}", rolling) for number in range(scenario.rolling)]
        cooperating = RollingGroup("cooperating", "orders", scenario.topics["orders"].partitions)
        self.clients += [CooperativeMember(self, f"o{number}", cooperating, scenario.modern_share) for number in range(scenario.cooperating)]
        static = Group("static", "orders", scenario.topics["orders"].partitions)
        self.clients += [StaticMember(self, f"t{number}", static) for number in range(scenario.statics)]
        if scenario.deletes:
            self.clients.append(Deleter(self, "deleter", scenario.deletes, scenario.faults_s / 10))
        if scenario.is_compacted:
            retention_s = int(scenario.topics[COMPACTED_TOPIC].config["delete.retention.ms"]) / 1000
            self.ledger = Ledger(retention_s)
            writer = KeyWriter(self, "keys", self.ledger, batches=4 * scenario.batches, pause_s=scenario.pause_s / 4)
            self.producers.append(writer)
            self.clients.append(writer)
            self.clients += [KeyReader(self, f"k{number}", self.ledger) for number in range(scenario.key_readers)]
        if scenario.admin_rounds:
            self.clients.append(Admin(self, "admin", ADMIN_TOPIC, scenario.admin_rounds, scenario.faults_s / 8))

    def _make_producer(self, name: str, topic: str, kind: str) -> Producer:
        partitions, batches, pause_s = self.scenario.topics[topic].partitions, self.scenario.batches, self.scenario.pause_s
        if kind == "idempotent":
            return IdempotentProducer(self, name, topic, partitions, batches=batches, pause_s=pause_s)
        if kind == "direct":
            return DirectProducer(self, name, topic, partitions, batches=batches, pause_s=pause_s)
        if kind == "impatient":
            return IdempotentProducer(
                self, name, topic, partitions, batches=batches, pause_s=pause_s, gives_up_s=0.4)
        acks, tries = {"plain": (1, 1), "retrying": (-1, 4), "acks=0": (0, 1)}[kind]
        return PlainProducer(
            self, name, topic, partitions, batches=batches, pause_s=pause_s, acks=acks, tries=tries)

    # -- the run ---------------------------------------------------------------------------------

    def run(self) -> Result:
        engine, scenario = self.engine, self.scenario
        self.machine.up()
        for client in self.clients:
            client.start()
        for fault in scenario.faults:
            engine.at(BEGIN_S + fault.at_s, self._do, fault)
        engine.run(BEGIN_S + scenario.faults_s)
        if scenario.mode == SAFETY and scenario.last_fault:
            self._do(Fault(scenario.faults_s, scenario.last_fault))
        self._heal()
        if scenario.mode == LIVENESS and not engine.violations:
            self._demand_progress()
        for client in self.clients:
            client.stop()
        if not engine.violations:
            self._read_everything()
        for problem in self.history.problems():
            engine.violate(problem.kind, f"{problem.partition}: {problem.what}")
        counts = engine.counts + Counter({"acknowledged records": self.history.acknowledged_count})
        digest = hashlib.blake2b(digest_size=8)
        digest.update(repr((engine.trace_hash, sorted(counts.items()), engine.violations)).encode())
        return Result(scenario.seed, digest.hexdigest(), engine.violations, counts, engine.now_s - BEGIN_S)

    def _do(self, fault: Fault) -> None:
        self.engine.counts[f"fault {fault.kind}"] += 1
        self.engine.trace("FAULT", fault.kind, fault)
        KINDS[fault.kind].do(self, fault)

    def _heal(self) -> None:
        """No more faults; what they left behind stays as it is."""
        self.engine.trace("FAULT", "heal")
        self.machine.arms.clear()
        self.machine.flushes_to_fail.clear()
        self.machine.network.heal()
        self.make_room()

    def make_room(self) -> None:
        self.machine.disk.room_bytes = None

    def _demand_progress(self) -> None:
        engine = self.engine
        for client in self.clients:
            client.finish()
        until_s = engine.now_s + LIVE_WITHIN_S
        if not engine.run(until_s, lambda: all(self._is_done(client) for client in self.clients)):
            waiting = [client for client in self.clients if not self._is_done(client)]
            self._violate_liveness(f"not done within {LIVE_WITHIN_S:g} s: {waiting} {self.machine.processes}")
        elif not engine.run(until_s, self.machine.settled):
            self._violate_liveness(f"not settled: {self.machine.unsettled()}")
        elif not engine.run(until_s, lambda: not self.machine.slices_in_use()):
            engine.violate("slice-leak", f"nobody reads them, and they are not free: {self.machine.slices_in_use()}")

    def _violate_liveness(self, what: str) -> None:
        """Unless it did not get that far, because something else did not hold."""
        if not self.engine.violations:
            self.engine.violate("liveness", what)

    def _is_done(self, client: Client) -> bool:
        """Or it waits for a partition whose disk failed, which only an operator brings back."""
        if isinstance(client, Producer):
            return client.done or (not client.batches_left and all(
                self.is_faulted(client.topic, index) or not (lane.waiting or lane.in_flight)
                for index, lane in client.lanes.items()))
        if isinstance(client, GroupClient):
            return client.done or self.is_faulted(GROUP_TOPIC, partition_of(client.group, GROUP_PARTITIONS))
        return client.done or (isinstance(client, Admin) and self.is_faulted(ADMIN_TOPIC, 0))

    def _is_over(self, client: Client) -> bool:
        return self._is_done(client) if isinstance(client, Witness) else client.done

    def _read_everything(self) -> None:
        admins = [client for client in self.clients if isinstance(client, Admin)]
        describers = [Describer(self, f"describer of {each.name}", each) for each in admins]
        readers: list[FullReader] = [
            FullReader(self, f"full-{topic.name}-{index}", topic.name, index)
            for topic in self.scenario.settings.topics for index in range(topic.partitions)
            if topic.name != COMPACTED_TOPIC]
        if self.scenario.is_compacted:
            readers.append(KeyReader(self, "full-keys", self.ledger, once=True))
        committers = [client for client in self.clients if isinstance(client, Committer)]
        witnesses = [Witness(self, f"witness of {each.name}", each) for each in committers]
        last: list[Client] = [*readers, *describers, *witnesses]
        for client in last:
            client.start()
        if self.engine.run(self.engine.now_s + READ_WITHIN_S, lambda: all(map(self._is_over, last))):
            for reader in readers:
                reader.report()
        else:
            self._violate_liveness(f"cannot be read: {readers} {self.machine.processes}")

    # -- what clients ask ------------------------------------------------------------------------

    def producers_done(self) -> bool:
        return all(self._is_done(producer) for producer in self.producers)

    def may_shrink(self, topic: str) -> bool:
        return "retention.bytes" in self.scenario.topics[topic].config

    def is_faulted(self, topic: str, partition: int) -> bool:
        """Whether a flush of it has failed."""
        return any(str(DATA / f"broker-{i}" / f"{topic}-{partition}") in self.machine.faulted for i in self.broker_ids)

    def on_producer_id(self, client: str, producer_id: int, epoch: int) -> None:
        before = self._producer_ids.setdefault((producer_id, epoch), client)
        owner = self._producer_ids.setdefault((producer_id, -1), client)
        if before != client or owner != client:
            self.engine.violate("producer-id", f"{producer_id} epoch {epoch} was given to {owner} and to {client}")


