"""Points that a process can be made to crash at: between which two steps of its work it ends, as by SIGKILL.

Owns: `POINTS`, the list of them, and `Crashes`, which looks whether the step that is being done is one.
Every point is derived from what an actor does to the world anyway, its calls of `Disk` and the effects that its shell
performs, so the code under test knows of none.
"""

from __future__ import annotations

import os
import signal
from pathlib import PurePath
from typing import Literal, NamedTuple, NoReturn

from zafka.runtime.faults.board import Watch
from zafka.runtime.faults.kinds import Crash

Step = Literal["list", "create", "write", "truncate", "rename", "unlink", "sync-dir", "flush", "ack", "recovered"]
Moment = Literal["before", "during", "after"]


class Point(NamedTuple):
    """A moment of a step on a file whose path fits. told: for people."""

    step: Step
    moment: Moment
    glob: str
    told: str


POINTS = {
    "during-recovery": Point("list", "after", "*", "the files of the log are listed, none is read"),
    "before-cut": Point("truncate", "before", "*.log", "a torn tail, or an append that failed, is about to be cut off"),
    "after-cut": Point("truncate", "after", "*.log", "it is cut off"),
    "after-recovery": Point("recovered", "before", "*", "the log is recovered, and nobody knows"),
    "before-append": Point("write", "before", "*.log", "batches are about to be written to a segment"),
    "during-append": Point("write", "during", "*.log", "half of their bytes are written"),
    "after-append": Point("write", "after", "*.log", "they are written, not flushed"),
    "before-flush": Point("flush", "before", "*.log", "a segment is about to be flushed"),
    "before-directory-flush": Point("sync-dir", "before", "*", "files are flushed, their names are about to be"),
    "after-flush": Point("flush", "after", "*.log", "a segment is flushed, nobody has been told"),
    "before-ack": Point("ack", "before", "*", "the answer is ready"),
    "after-ack": Point("ack", "after", "*", "the answer has left the process"),
    "during-roll": Point("create", "after", "*[1-9]*.log", "a new segment's file is made, and empty"),
    "before-index": Point("write", "before", "*index", "index entries are about to be written"),
    "during-checkpoint": Point("write", "during", "recovery-checkpoint.tmp", "half of a checkpoint is written"),
    "before-checkpoint-rename": Point("rename", "before", "recovery-checkpoint", "a checkpoint has no name yet"),
    "after-checkpoint-rename": Point("rename", "after", "recovery-checkpoint", "its name is there, not flushed"),
    "before-delete": Point("rename", "before", "*.deleted", "retention is about to give a segment up"),
    "after-delete": Point("rename", "after", "*.deleted", "one of its files has its last name"),
    "before-unlink": Point("unlink", "before", "*.deleted", "that file is about to be unlinked"),
    "before-topic-delete": Point("rename", "before", "*-delete", "a broker is about to give a partition's folder up"),
    "after-topic-delete": Point("rename", "after", "*-delete", "the folder has its last name"),
}


class Crashes:
    """Looks at every step of one process."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def at(self, step: Step, moment: Moment, path: PurePath | None = None) -> None:
        """Crash here if a rule says so."""
        if self.due(step, moment, path):
            die()

    def due(self, step: Step, moment: Moment, path: PurePath | None = None) -> bool:
        """Whether to crash here; for steps that have something to do before."""
        for posted in self._watch.own(Crash):
            assert isinstance(posted.rule, Crash)
            point = POINTS[posted.rule.point]
            here = (point.step, point.moment) == (step, moment) and (path is None or path.match(point.glob))
            if here and self._watch.hits(posted):
                return True
        return False


def die() -> NoReturn:
    """End as by SIGKILL: nothing more is flushed, sent or cleaned up."""
    while True:
        os.kill(os.getpid(), signal.SIGKILL)
