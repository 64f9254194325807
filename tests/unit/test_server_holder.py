"""The fork server's replacement, with real servers: when there is a further one, and when that would not help."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.readiness import readable
from zafka.runtime.errors import CannotStart, TreeFailed
from zafka.runtime.fork_client import ForkServerClient, ForkServerGone
from zafka.runtime.server_holder import ServerHolder
from zafka.runtime.settings import SupervisionSettings

TIMEOUT_S = 20.0


class Holder:
    """A holder of servers that import these modules; what it complains of, and how often it has launched one."""

    def __init__(self, *modules: str) -> None:
        self.modules = modules
        self.launched = 0
        self.complaints: list[str] = []
        self.holder = ServerHolder(self._launch, SupervisionSettings(intensity=2), self.complaints.append)

    def _launch(self) -> ForkServerClient:
        self.launched += 1
        return ForkServerClient(self.modules)

    def receive_once(self) -> None:
        assert readable(self.holder.server.socket, TIMEOUT_S), "nothing came"
        assert self.holder.receive() == []  # it has no children

    def await_end(self) -> int | None:
        """The exit code of a server that dies, or was killed."""
        while True:
            try:
                self.receive_once()
            except ForkServerGone:
                return self.holder.bury()


@pytest.fixture
def closing() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_one_that_was_ready_is_replaced_as_often_as_it_dies(closing: ExitStack) -> None:
    test = Holder("zafka.actors.start")
    closing.callback(test.holder.close)
    for _ in range(4):
        test.receive_once()  # that it is ready
        test.holder.server.signal_server(signal.SIGKILL)
        assert test.await_end() == -signal.SIGKILL
        before = test.holder.server
        assert test.holder.replace() is test.holder.server is not before
    assert (test.launched, test.complaints) == (5, [])


def test_one_that_dies_again_and_again_before_it_is_ready_is_given_up(closing: ExitStack) -> None:
    test = Holder("zafka.actors.start")
    closing.callback(test.holder.close)
    for _ in range(3):
        test.holder.server.signal_server(signal.SIGKILL)
        assert test.await_end() == -signal.SIGKILL
        if test.launched < 3:
            test.holder.replace()
    with pytest.raises(TreeFailed, match="again and again before it is ready"):
        test.holder.replace()
    assert test.launched == 3


def test_one_that_cannot_import_is_not_tried_again(closing: ExitStack) -> None:
    test = Holder("no_such_module")
    closing.callback(test.holder.close)
    assert test.await_end() == 1
    with pytest.raises(CannotStart, match="ended before it was ready"):
        test.holder.replace()


def test_one_that_died_while_all_stop_is_not_asked_how_it_is(closing: ExitStack) -> None:
    test = Holder("zafka.actors.start")
    closing.callback(test.holder.close)
    test.receive_once()  # that it is ready: from now on it is asked
    test.holder.server.signal_server(signal.SIGKILL)
    test.await_end()
    test.holder.tick(1e9)
    test.holder.tick(2e9)  # nor ended for being silent
