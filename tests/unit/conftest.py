"""What holds for all unit tests: nobody leaves files open.

Owns: the end of actors that tests abandon (`ClosingDisk`), and the check: which test has opened a file that is open still when
its module is done. Sockets are not looked at: libzmq and multiprocessing keep some for as long as the process lives.
"""

from __future__ import annotations

import contextlib
import gc
import os
from collections import Counter
from collections.abc import Generator, Iterator

import pytest

from tests.unit.disks import ClosingDisk


@pytest.fixture(autouse=True)
def close_what_was_abandoned() -> Iterator[None]:
    """Tests end as processes do that are killed: their actors close nothing."""
    yield
    ClosingDisk.close_all()


class OpenFiles:
    """left: how many files each test has left open. A fixture may close its own at the module's end, so it is asked for then."""

    def __init__(self) -> None:
        self.left: Counter[str] = Counter()
        self._known = _open_now()
        self._opened: dict[tuple[int, str], str] = {}  # by which test

    def test_ended(self, name: str) -> None:
        now = _open_now()
        self._opened = {file: test for file, test in self._opened.items() if file in now}
        self._opened.update(dict.fromkeys(now - self._known - self._opened.keys(), name))

    def module_ended(self) -> None:
        if self._opened:
            gc.collect()  # what is held by a cycle of references alone goes with it
            self._opened = {file: test for file, test in self._opened.items() if file in _open_now()}
        self.left.update(self._opened.values())
        self._known |= self._opened.keys()
        self._opened.clear()


def _open_now() -> set[tuple[int, str]]:
    """Descriptor and path of each file."""
    found = set()
    for fd in map(int, os.listdir("/proc/self/fd")):
        with contextlib.suppress(OSError):  # that of the list itself
            path = os.readlink(f"/proc/self/fd/{fd}")
            if path.startswith("/") and not path.startswith("/dev/"):
                found.add((fd, path))
    return found


OPEN_FILES = pytest.StashKey[OpenFiles]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, object, object]:
    files = item.config.stash.setdefault(OPEN_FILES, OpenFiles())
    done = yield
    files.test_ended(item.nodeid)
    if nextitem is None or nextitem.path != item.path:
        files.module_ended()
    return done


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    files = session.config.stash.get(OPEN_FILES, None)
    if files is not None and files.left and exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    files = terminalreporter.config.stash.get(OPEN_FILES, None)
    if files is not None and files.left:
        terminalreporter.section("files left open")
        for name, count in files.left.most_common():
            terminalreporter.line(f"{count} by {name}")
