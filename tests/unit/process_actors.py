"""Small things for real processes to be, named by tests as "process_actors:name"."""

from __future__ import annotations

import json
import os
import signal

from zafka.actors.start import INHERITED_FD, ActorStart, CustomStart


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
