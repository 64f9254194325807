"""The simulated machine: its disk, its processes, and the root that supervises them.

Owns: `Machine`. The tree of supervisors is the production one (`runtime/tree.py`), with a fork server, a run directory
and listeners that are simulated. A machine is up or down; its disk and the numbers of incarnations outlive that.
"""

from __future__ import annotations

import signal
from collections import Counter, deque
from pathlib import Path
from typing import Any

import msgspec

from tests.simulation.checks import DATA, Checks
from tests.simulation.connections import Connection
from tests.simulation.engine import Engine
from tests.simulation.network import Context, Network
from tests.simulation.processes import PROGRAMS, Arm, BrokerProcess, Process
from tests.unit.memory_disk import MemoryDisk
from zafka.actors.messages import AnyMessage
from zafka.actors.shell import resolve
from zafka.actors.start import COORDINATOR_DISK_FAULT, SUPERVISOR, ActorStart, ListenerStart
from zafka.runtime.fork_client import Exited, Spawned
from zafka.runtime.settings import BrokerSettings, TreeSettings
from zafka.runtime.supervisor import State
from zafka.runtime.tree import Tree, TreeRunning
from zafka.storage.config import parse_config
from zafka.storage.repair import go_on, plan, repair
from zafka.storage.verify import verify
from zafka.transport.mailbox import Mailbox

MAIL_PER_ROUND = 1000
STOP_S = 4.0
UP_AGAIN_S = 0.3


class Root(Tree):
    """The production tree; an actor's last word has come before its death is reported, and no kernel holds anybody."""

    def _await_last_word(self, running: TreeRunning) -> None:
        for received in self.mailbox.receive(MAIL_PER_ROUND):
            self.on_mail(received)

    def _waits_for_disk(self, running: TreeRunning) -> bool:
        return False


class DataDirectory:
    """path, cluster_id and incarnations, as `runtime/data_dir.py` keeps them durably."""

    path = DATA
    cluster_id = ""

    def __init__(self) -> None:
        self._last = 0

    def next_incarnation(self) -> int:
        self._last += 1
        return self._last


class RunDirectory:
    def endpoint(self, name: str) -> str:
        return f"ipc://{name}"

    def remove_socket(self, endpoint: str) -> None:
        pass


class Listeners:
    def __init__(self, broker: BrokerSettings) -> None:
        self.broker = broker

    def starts(self) -> list[ListenerStart]:
        port = 9000 + self.broker.id
        return [ListenerStart("kafka", "kafka", f"127.0.0.1:{port}", "127.0.0.1", port, -1)]

    def fds(self) -> tuple[int, ...]:
        return ()


class ForkServer:
    """Makes processes, a moment after it was asked."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.unborn: dict[int, bool] = {}  # incarnation, and whether it is to be killed at birth

    def spawn(self, incarnation: int, name: str, data: bytes, fds: Any, modules: Any) -> None:
        self.unborn[incarnation] = False
        start = msgspec.msgpack.decode(data, type=ActorStart)
        seconds = 0.002 + 0.01 * self.machine.random.random()
        self.machine.engine.after(seconds, self._fork, start)

    def kill(self, incarnation: int) -> None:
        if incarnation in self.unborn:
            self.unborn[incarnation] = True
        elif incarnation in self.machine.processes:
            self.machine.processes[incarnation].die(-signal.SIGKILL)

    def _fork(self, start: ActorStart) -> None:
        machine = self.machine
        if machine.server is not self:
            return  # the server died, and this with it
        doomed = self.unborn.pop(start.incarnation)
        process: Process = resolve(start.main)(machine, start)
        machine.processes[start.incarnation] = process
        machine.report(Spawned(start.incarnation, start.incarnation))
        if doomed:
            process.die(-signal.SIGKILL)
        else:
            process.begin()


class RootProcess:
    """`runtime/root.py`'s loop: reports of the fork server first, then mail, then what is due."""

    alive = True
    name = SUPERVISOR

    def __init__(self, machine: Machine, settings: TreeSettings, incarnation: int) -> None:
        self.machine = machine
        self.engine = machine.engine
        self.heartbeat_s = settings.supervision.heartbeat_s
        self.context = Context(machine.network, self)
        context: Any = self.context
        self.mailbox = Mailbox(context, SUPERVISOR, incarnation, AnyMessage, endpoint="ipc://root")
        self.reports: deque[Spawned | Exited] = deque()
        fakes: dict[str, Any] = {
            "data_dir": machine.data_dir, "run_dir": RunDirectory(), "server": machine.server,
            "listeners": {broker.id: Listeners(broker) for broker in settings.brokers}}
        self.tree = Root(
            settings, mailbox=self.mailbox, log=self._log, random=machine.random.random, programs=PROGRAMS,
            clock=lambda: self.engine.now_s, **fakes)
        self._wake_at_s = float("inf")
        self._pulse_at_s = 0.0

    def step(self, what: str, where: object = "") -> None:
        pass

    def begin(self) -> None:
        self.tree.start()
        self.wake(self.engine.now_s)

    def wake(self, at_s: float) -> None:
        if at_s < self._wake_at_s and self.alive:
            self._wake_at_s = at_s
            self.engine.at(at_s, self._on_wake, at_s)

    def _on_wake(self, at_s: float) -> None:
        if not self.alive or at_s != self._wake_at_s:
            return
        self._wake_at_s = float("inf")
        tree = self.tree
        while self.reports:
            report = self.reports.popleft()
            if isinstance(report, Spawned):
                tree.on_spawned(report)
            else:
                tree.on_exited(report)
        for received in self.mailbox.receive(MAIL_PER_ROUND):
            tree.on_mail(received)
        self.mailbox.retry()
        if self.engine.now_s >= self._pulse_at_s:
            self._pulse_at_s = self.engine.now_s + self.heartbeat_s
            self.mailbox.pulse()
        tree.tick()
        if tree.ended is not None:
            self.machine.on_ended(tree.ended)
        else:
            self.wake(max(min(self.engine.now_s + self.heartbeat_s, tree.wakeup_s()), self.engine.now_s + 1e-6))

    def _log(self, level: str, event: str, **fields: Any) -> None:
        if self.engine.tell is not None:
            self.engine.tell(f"{'':10}  {'supervisor':<22} {event} " + " ".join(f"{k}={v}" for k, v in fields.items()))


class Machine:
    """settings: the topology. flush_s: how long a flush may take. Whoever started the root starts it again if it ends."""

    def __init__(self, engine: Engine, settings: TreeSettings, flush_s: float) -> None:
        self.engine = engine
        self.settings = settings
        self.flush_s = flush_s
        self.random = engine.stream("machine")
        self.disk_random = engine.stream("disk times")
        self.network = Network(engine)
        self.disk = MemoryDisk(engine.stream("disk").getrandbits(32))
        self.checks = Checks(self)
        self.data_dir = DataDirectory()
        self.processes: dict[int, Process] = {}
        self.arms: dict[str, list[Arm]] = {}  # by name: where its processes end, one after the other
        self.flushes_to_fail: Counter[str] = Counter()  # by name of the actor
        self.faulted: dict[str, None] = {}  # directories of which a flush has failed
        self.root: RootProcess | None = None
        self.server = ForkServer(self)
        self.starts = 0
        self._ids = engine.stream("ids")
        self._backlog: dict[int, Connection] = {}
        self._last_connection = 0
        self._reported_s = 0.0
        self.disk.make_directory(DATA)
        for broker in settings.brokers:
            self.disk.make_directory(DATA / f"broker-{broker.id}")
        self.disk.fsync_dir(DATA)

    def new_id(self) -> bytes:
        return self._ids.randbytes(16)

    # -- up and down -----------------------------------------------------------------------------

    def up(self) -> None:
        if self.root is not None:
            return
        self.starts += 1
        self.engine.trace("machine", "up")
        self.server = ForkServer(self)
        self.root = RootProcess(self, self.settings, self.data_dir.next_incarnation())
        self.root.begin()

    def power_cut(self) -> None:
        """Everything is gone at once, and of what was not flushed any part."""
        self.engine.counts["power cuts"] += 1
        self.engine.trace("machine", "power cut")
        self.kill_everything()
        self.disk.power_cut()
        self.checks.on_power_cut()
        self.engine.after(UP_AGAIN_S, self.up)

    def kill_root(self) -> None:
        """The root dies, and with it the fork server and all actors."""
        self.engine.trace("machine", "root killed")
        self.kill_everything()
        self.engine.after(UP_AGAIN_S, self.up)

    def kill_server(self) -> None:
        """The fork server dies, and with it all actors; the root goes on."""
        if self.root is None:
            return
        self.engine.trace("machine", "fork server killed")
        for process in list(self.processes.values()):
            process.die(-signal.SIGKILL)
        self.root.reports.clear()
        self.server = ForkServer(self)
        server: Any = self.server
        self.root.tree.on_server_gone(server)
        self.root.wake(self.engine.now_s)

    def restart(self) -> None:
        """SIGTERM to the root, and `up` again once it is down."""
        if self.root is not None:
            self.engine.trace("machine", "shutdown")
            root = self.root
            root.tree.shutdown()
            root.wake(self.engine.now_s)
            self.engine.after(STOP_S, self._stop_now, root)

    def _stop_now(self, root: RootProcess) -> None:
        if self.root is root:
            self.engine.counts["shutdowns that took too long"] += 1
            self.kill_root()

    def kill_everything(self) -> None:
        root, self.root = self.root, None
        if root is not None:
            root.alive = False
            root.context.end(killed=True)
        self.server = ForkServer(self)
        for process in list(self.processes.values()):
            process.die(-signal.SIGKILL)
        for connection in list(self._backlog.values()):
            connection.lose(killed=True)
        self._backlog.clear()

    def on_ended(self, ended: Any) -> None:
        """The tree is at its end; whoever started it starts it again."""
        self.engine.trace("machine", "tree ended", ended)
        self.engine.counts["trees that gave up" if ended.failed else "shutdowns"] += 1
        self.kill_everything()
        if ended.code == COORDINATOR_DISK_FAULT:
            # The operator looks at the disk: after a reboot the page cache does not lie any more.
            self.checks.on_coordinator_fault(ended.reason)
            self.disk.power_cut()
            self.recover_by_hand(DATA / "coordinator" / "__cluster-0")
        self.engine.after(UP_AGAIN_S, self.up)

    def recover_by_hand(self, directory: Path) -> None:
        """What `zafka log recover --accept-loss` does; there must be nothing to lose. The operator has made room before."""
        now_ms = self.engine.wall_ms(self.engine.now_s)
        self.disk.room_bytes = None
        if not self.disk.exists(directory):
            return  # the power cut took it, with the first flush of all that had failed
        go_on(self.disk, directory)
        verdict = verify(self.disk, directory)
        planned = plan(self.disk, verdict, new_id=f"by-hand-{now_ms}", now_ms=now_ms)
        if planned.lost:
            self.engine.violate("lost", f"{directory}: offsets {planned.lost}")
        repair(self.disk, verdict, planned, parse_config({}), now_ms=now_ms)

    # -- processes -------------------------------------------------------------------------------

    def named(self, name: str) -> Process | None:
        """The newest living incarnation."""
        found = [process for process in self.processes.values() if process.name == name]
        return found[-1] if found else None

    def report(self, report: Spawned | Exited) -> None:
        """To the root, in order, as through one socket."""
        if self.root is not None:
            at_s = self.engine.now_s + 0.0005 * self.random.random()
            self._reported_s = max(at_s, self._reported_s + 1e-9)
            self.engine.at(self._reported_s, self._report, self.root, self.server, report)

    def _report(self, root: RootProcess, server: ForkServer, report: Spawned | Exited) -> None:
        if root.alive and server is self.server:
            root.reports.append(report)
            root.wake(self.engine.now_s)

    def on_death(self, process: Process, code: int) -> None:
        self.processes.pop(process.incarnation, None)
        self.report(Exited(process.incarnation, code))

    def on_flush_failed(self, path: Path) -> None:
        self.engine.counts["flushes failed"] += 1
        self.engine.trace("disk", "flush failed", path)
        self.faulted[str(path.parent)] = None

    # -- clients ---------------------------------------------------------------------------------

    def connect(self, broker_id: int, client: str, **hear: Any) -> Connection:
        self._last_connection += 1
        return Connection(self, self._last_connection, broker_id, client, **hear)

    def on_connect(self, connection: Connection) -> None:
        if self.root is None:
            connection.lose(killed=True)
            return
        broker = self.named(f"broker {connection.broker_id}")
        if isinstance(broker, BrokerProcess) and broker.doors_open:
            connection.accept(broker)
        else:
            self._backlog[connection.id] = connection

    def take_backlog(self, broker: BrokerProcess) -> None:
        if broker.alive and broker.doors_open:
            for connection in list(self._backlog.values()):
                if connection.broker_id == broker.arguments.broker_id:
                    del self._backlog[connection.id]
                    connection.accept(broker)

    def forget_connection(self, connection: Connection) -> None:
        self._backlog.pop(connection.id, None)

    # -- what is seen from outside ---------------------------------------------------------------

    @property
    def ready(self) -> bool:
        return self.root is not None and self.root.tree.ready

    def settled(self) -> bool:
        """Every supervisor has its children where they should be."""
        return self.ready and not self.unsettled()

    def slices_in_use(self) -> list[str]:
        """Arenas of living brokers that are not all free."""
        brokers = [process for process in self.processes.values() if isinstance(process, BrokerProcess)]
        return [f"{each.name}: {each.arena}" for each in brokers if each.arena is not None and each.arena.used]

    def unsettled(self) -> list[str]:
        """Who is not where he should be."""
        if self.root is None:
            return ["the root"]
        actors = self.root.tree.actors.values()
        return [f"{actor.name} is {actor.child.state.value}" for actor in actors if actor.child.state is not State.READY]
