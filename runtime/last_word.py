"""How a process ended, in words; and whether one that is silent waits for the disk.

Owns: the wait for what an actor says of its own end, which comes by another way than the news of its death; the look
at what the kernel says of a process.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zmq

from zafka.transport.mailbox import Mailbox, Received

LAST_WORD_S = 0.1
MAIL_AT_ONCE = 100


def await_last_word(mailbox: Mailbox, said: Callable[[], bool], on_mail: Callable[[Received], None]) -> None:
    """Take in mail until the word was `said`, or for a moment: an orderly end says why."""
    (inbox,) = mailbox.ports()
    poll_list: list[tuple[Any, int]] = [(inbox, int(zmq.POLLIN))]
    give_up_s = time.monotonic() + LAST_WORD_S
    while not said() and time.monotonic() < give_up_s:
        zmq.zmq_poll(poll_list, 10)
        for received in mailbox.receive(MAIL_AT_ONCE):
            on_mail(received)


def waits_for_disk(pid: int) -> bool:
    """Whether the kernel holds this process in an uninterruptible sleep (state D), as a flush that stalls does.

    Source: proc(5), /proc/pid/stat; fdatasync sleeps in io_schedule, or for the journal, both uninterruptible.
    """
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state == "D"


def exit_reason(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"
