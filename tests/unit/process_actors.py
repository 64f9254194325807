"""Small things for real processes to be, named by tests as "process_actors:name"."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable

from zafka.actors.actor import Effects, Exit, Mail, Now, Send
from zafka.actors.messages import ChildrenTold, ReadCluster, Ready, Shutdown, WhichChildren
from zafka.actors.start import INHERITED_FD, SUPERVISOR, ActorStart, CustomStart
from zafka.storage.disk import Disk


def exit_with(start: ActorStart) -> int:
    assert isinstance(start.arguments, CustomStart)
    return int(start.arguments.arguments["code"])


def wait(start: ActorStart) -> int:
    signal.pause()
    return 0


def fail(start: ActorStart) -> int:
    raise RuntimeError("planted")


def tell(start: ActorStart) -> int:
    """What this process is, as JSON into the first inherited descriptor."""
    with open("/proc/self/cmdline") as file:
        title = file.read().rstrip("\0")
    facts = {
        "title": title,
        "incarnation": start.incarnation,
        "parent": os.getppid(),
        "ignores": [signal.getsignal(number) == signal.SIG_IGN for number in (signal.SIGINT, signal.SIGTERM)],
        "fds": sorted(int(name) for name in os.listdir("/proc/self/fd")),
    }
    os.write(INHERITED_FD, json.dumps(facts).encode())
    return 0


# -- actors for `zafka.actors.shell:main` ----------------------------------------------------------


class Echo:
    """Answers WhichChildren, crashes on ReadCluster, stops on Shutdown."""

    def on_start(self, now: Now) -> Effects:
        return [Send(SUPERVISOR, Ready())]

    def on_mail(self, mail: Mail, now: Now) -> Effects:
        match mail.body:
            case Shutdown():
                return [Exit(0, "shutdown")]
            case WhichChildren():
                return [Send(mail.sender, ChildrenTold([]))]
            case ReadCluster(offset=offset):
                raise ValueError(f"planted at {offset}")
        return []

    def on_turn_end(self, now: Now) -> Effects:
        return []


def build_echo(start: CustomStart, disk: Disk, now: Now, progress: Callable[[], None]) -> Echo:
    progress()
    return Echo()
