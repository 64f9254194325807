"""The root process: one loop over the mail of actors, the fork server, signals and control requests.

Owns: the life of `zafka up`, from the data directory's lock to its release: the run directory, the listening
sockets, the fork server, the tree of supervised actors (`runtime/tree.py`), and the answers to `zafka status`.
Raises RuntimeFault, with a message for the operator: CannotStart before anything runs, TreeFailed when supervision
has given up. SIGTERM, SIGINT and SIGHUP stop in order, a second one at once.
Invariants: it never blocks on an actor; whatever ends it, nobody outlives it.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import signal
import sys
import time
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec
import zmq

from zafka.actors.messages import AnyMessage
from zafka.actors.start import COORDINATOR_DISK_FAULT, SUPERVISOR, TOPOLOGY_REFUSED
from zafka.runtime.control import ControlServer
from zafka.runtime.data_dir import DataDirectory, way_out, write_atomically
from zafka.runtime.errors import CannotStart, TreeFailed
from zafka.runtime.fork_client import ForkServerClient, ForkServerGone, launch
from zafka.runtime.limits import check_room, raise_descriptor_limit
from zafka.runtime.listeners import Listeners, advertised
from zafka.runtime.log import configure_logging
from zafka.runtime.processes import Program
from zafka.runtime.run_dir import RunDirectory
from zafka.runtime.server_holder import ServerHolder
from zafka.runtime.settings import TreeSettings
from zafka.runtime.supervisor import Ended, tick_interval_s
from zafka.runtime.tree import PROGRAMS, Tree
from zafka.transport.mailbox import Mailbox

if TYPE_CHECKING:
    from zafka.runtime.faults.desk import Desk

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
STOP_S = 1.8  # after the first signal; then what is left is killed
MAIL_PER_ROUND = 1000
RETRY_S = 0.005

Ready = Callable[[dict[str, Any]], None]


def run(
    settings: TreeSettings,
    on_ready: Ready | None = None,
    *,
    programs: Mapping[str, Program] = PROGRAMS,
) -> int:
    """Run a topology until it is stopped; returns the exit code.

    on_ready: told once that everything accepts clients, with what the ready file says.
    The fork server is the one of `launch_early`, if that was called.
    Raises CannotStart, TreeFailed.
    """
    with contextlib.ExitStack() as closing:
        # Whatever happens here, no process stays behind.
        holder = ServerHolder(launch, settings.supervision, _complain)
        closing.callback(holder.close)
        _check_ready_file(settings)
        raise_descriptor_limit()
        check_room(1 + len(settings.brokers) + sum(topic.partitions for topic in settings.topics))
        data_dir = DataDirectory(settings.data_dir, broker_ids=tuple(broker.id for broker in settings.brokers))
        closing.callback(data_dir.close)
        listeners: dict[int, Listeners] = {}
        for broker in settings.brokers:
            listeners[broker.id] = Listeners(broker)
            closing.callback(listeners[broker.id].close)
        run_dir = RunDirectory()
        closing.callback(run_dir.close)
        root = Root(settings, holder, data_dir, run_dir, listeners, on_ready, programs)
        closing.callback(root.close)
        closing.callback(holder.close)  # first of all, before what the processes use is given back
        return root.run()


def _check_ready_file(settings: TreeSettings) -> None:
    """It is written late; that it cannot be is to be known at once."""
    file = settings.ready_file
    if file is not None and not os.access(file.parent, os.W_OK | os.X_OK):
        raise CannotStart(f"cannot write the ready file {file}: {file.parent} is no folder that we may write in")
    if file is not None:
        file.unlink(missing_ok=True)


def _complain(text: str) -> None:
    os.write(2, f"zafka: {text}\n".encode())


class Root:
    """One life of `up`. The arguments stay the caller's to close."""

    def __init__(
        self,
        settings: TreeSettings,
        holder: ServerHolder,
        data_dir: DataDirectory,
        run_dir: RunDirectory,
        listeners: dict[int, Listeners],
        on_ready: Ready | None,
        programs: Mapping[str, Program],
    ) -> None:
        self.settings = settings
        self.started_s = time.monotonic()
        self.announced = False  # that all is ready
        self._holder = holder
        self._data_dir = data_dir
        self._listeners = listeners
        self._on_ready = on_ready
        self._signals: list[int] = []
        self._pulse_at_s = 0.0  # when the mailbox's next heartbeat is due
        self._stop_by_s: float | None = None  # when the rest is killed, once it stops
        self.incarnation = data_dir.next_incarnation()
        self.context: zmq.Context[Any] = zmq.Context()
        self.desk: Desk | None = None  # where faults are allowed
        make_mailbox: Callable[..., Mailbox] = Mailbox
        if settings.faults:
            from zafka.runtime.faults.desk import set_up

            self.desk, make_mailbox, programs = set_up(self, run_dir.path, programs)
        self.mailbox = make_mailbox(
            self.context, SUPERVISOR, self.incarnation, AnyMessage, endpoint=run_dir.endpoint("root"))
        self.tree = Tree(
            settings, data_dir=data_dir, run_dir=run_dir, listeners=listeners, mailbox=self.mailbox,
            server=holder.server, log=self.log, random=random.random, programs=programs)
        self.control = ControlServer(self.context, run_dir.endpoint("control"), self)
        data_dir.write_run(run_dir=run_dir.path, control=run_dir.endpoint("control"), cluster=settings.cluster)
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def __repr__(self) -> str:
        return f"<Root {self.settings.cluster} {self.tree!r}>"

    @property
    def server(self) -> ForkServerClient:
        return self._holder.server

    # -- the loop ------------------------------------------------------------------------------

    def run(self) -> int:
        """From the first actor to the last."""
        self._holder.server.watch_root(self.settings.supervision.hung_after_s)
        before = {number: signal.signal(number, self._on_signal) for number in _stop_signals()}
        wakeup_before = signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        try:
            self.tree.start()
            self.log("info", "starting", cluster=self.settings.cluster, data_dir=str(self.settings.data_dir),
                     **({"faults": "allowed"} if self.desk is not None else {}))
            while self.tree.ended is None:
                self._wait()
                self._round()
                if self._stop_by_s is not None and time.monotonic() > self._stop_by_s:
                    self._stop_now("did not stop in time, killed what was left")
                    return 0
                if self._second_signal():
                    self._stop_now("stopped at once")
                    return 128 + self._signals[-1]
        finally:
            signal.set_wakeup_fd(wakeup_before)
            for number, handler in before.items():
                signal.signal(number, handler)
            if self.settings.ready_file is not None:
                self.settings.ready_file.unlink(missing_ok=True)
        return self._result(self.tree.ended)

    def _wait(self) -> None:
        """Until something happens or is due."""
        now_s = time.monotonic()
        supervision = self.settings.supervision
        ticks_s = min(supervision.heartbeat_s, tick_interval_s(supervision.hung_after_s))
        wait_s = min(ticks_s, self.tree.wakeup_s() - now_s)
        if self._stop_by_s is not None:
            wait_s = min(wait_s, self._stop_by_s - now_s)
        if self.mailbox.queued:
            wait_s = min(wait_s, RETRY_S)
        if self.desk is not None:
            wait_s = min(wait_s, self.desk.wakeup_s() - now_s)
        events = select.POLLIN | (select.POLLOUT if self.server.wants_to_write else 0)
        poll_list: list[tuple[Any, int]] = [
            *((sock, int(zmq.POLLIN)) for sock in self.mailbox.ports()),
            (self.control.socket, int(zmq.POLLIN)),
            (self.server.socket.fileno(), events),
            (self._wake_read, int(zmq.POLLIN)),
        ]
        if self.settings.stop_with_stdin and self._stop_by_s is None:
            poll_list.append((0, int(zmq.POLLIN)))
        ready = dict(zmq.zmq_poll(poll_list, max(0, int(wait_s * 1000) + 1)))
        if self._wake_read in ready:
            os.read(self._wake_read, 4096)
        if 0 in ready and not os.read(0, 4096):
            self.stop()

    def _round(self) -> None:
        """Take in everything that has come: deaths first, so that no mail of the dead is believed."""
        if self._signals and self._stop_by_s is None:
            self.log("info", "stopping", signal=signal.Signals(self._signals[0]).name)
            self.stop()
        self._take_reports()
        for received in self.mailbox.receive(MAIL_PER_ROUND):
            self.tree.on_mail(received)
        self.mailbox.retry()
        self._pulse()
        self.control.answer()
        if self.desk is not None:
            self.desk.tick()
        self.tree.tick()
        self._holder.tick(time.monotonic())
        if not self.announced and self.tree.ready:
            self._announce()

    def _pulse(self) -> None:
        now_s = time.monotonic()
        if now_s >= self._pulse_at_s:
            self._pulse_at_s = now_s + self.settings.supervision.heartbeat_s
            self.mailbox.pulse()

    def _take_reports(self) -> None:
        try:
            reports = self._holder.receive()
        except ForkServerGone:
            self._replace_server()
            return
        for report in reports:
            self.tree.on_report(report)

    def _replace_server(self) -> None:
        """The fork server is dead and with it every actor: all start again, from a new one."""
        code = self._holder.bury()
        self.log("error", "fork server died, all actors with it", pid=self.server.pid, code=code)
        if self._stop_by_s is None:
            self._holder.replace().watch_root(self.settings.supervision.hung_after_s)
        self.tree.on_server_gone(self.server)

    # -- the end -------------------------------------------------------------------------------

    def stop(self) -> None:
        """Stop in order: doors, partitions, brokers, coordinator."""
        if self._stop_by_s is None:
            self._stop_by_s = time.monotonic() + STOP_S
            for listeners in self._listeners.values():
                listeners.close()  # with the brokers' own ones, new connections are refused from then on
            self.tree.shutdown()

    def _on_signal(self, number: int, frame: object) -> None:
        self._signals.append(number)

    def _second_signal(self) -> bool:
        return len(self._signals) > 1

    def _stop_now(self, what: str) -> None:
        self.log("warning", what)
        self._holder.close()

    def _result(self, ended: Ended) -> int:
        """The exit code of a tree that has come to its end."""
        if not ended.failed:
            return 0
        if ended.code == COORDINATOR_DISK_FAULT:
            self._data_dir.mark_fault(ended.reason)
            raise TreeFailed(
                f"{ended.reason}. What was acknowledged is kept as far as the disk kept it; check the disk under "
                f"{self._data_dir.path}, then {way_out(self._data_dir.path)} and start again")
        if ended.code == TOPOLOGY_REFUSED:
            raise TreeFailed(ended.reason)
        raise TreeFailed(
            f"supervision gave up and stopped everything: {ended.reason}. What was acknowledged is kept under "
            f"{self._data_dir.path}; the lines above say more of each crash: mend the cause, then start again")

    def close(self) -> None:
        """Let go of what is ours. The processes are dead by now, or are killed next."""
        self.mailbox.close()
        self.control.close()
        if self.desk is not None:
            self.desk.close()
        self.context.term()
        for fd in (self._wake_read, self._wake_write):
            os.close(fd)

    # -- telling -------------------------------------------------------------------------------

    def log(self, level: str, event: str, **fields: Any) -> None:
        getattr(self._logger, level)(event, **fields)

    @cached_property
    def _logger(self) -> Any:
        """Made at the first use, which is when the first actors are on their way: the import takes a while."""
        hook = sys.excepthook
        configure_logging(actor=SUPERVISOR, incarnation=self.incarnation)
        sys.excepthook = hook  # what goes wrong here is the caller's to show
        import structlog

        return structlog.get_logger(__name__)

    def _announce(self) -> None:
        """Everything accepts clients: say so, once."""
        self.announced = True
        brokers = []
        for broker_id, listeners in self._listeners.items():
            starts = listeners.starts()
            for start in starts:
                where = f"{'tcp://' if start.protocol == 'zmq' else ''}{start.host}:{start.port}"
                self.log("info", "listener ready", broker=broker_id, listener=start.name, address=where)
            zmq_address = advertised(starts, "zmq")
            brokers.append({
                "id": broker_id,
                "kafka": advertised(starts, "kafka"),
                "zmq": f"tcp://{zmq_address}" if zmq_address else None,
            })
        ready = {"cluster": self.settings.cluster, "pid": os.getpid(), "brokers": brokers, "dashboard": None}
        if self.settings.ready_file is not None:
            write_atomically(self.settings.ready_file, msgspec.json.encode(ready).decode() + "\n")
        if self._on_ready is not None:
            self._on_ready(ready)
        if self.desk is not None and self.settings.fault_plan is not None:
            self.desk.follow(self.settings.fault_plan)


def _stop_signals() -> list[signal.Signals]:
    """All of STOP_SIGNALS, but under nohup the end of the terminal is not for us."""
    nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [number for number in STOP_SIGNALS if not (nohup and number is signal.SIGHUP)]
