"""`zafka completion`: a real bash on a terminal, Tab for Tab, with and without a cluster."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from zafka.client.admin import Admin
from zafka.testing import Broker

ROOT = Path(__file__).resolve().parent.parent.parent
TIMEOUT_S = 60
NOBODY = "127.0.0.1:1"

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")


class Bash:
    """An interactive bash that completes `zafka`."""

    def __init__(self, folder: Path, bootstrap: str) -> None:
        command = folder / "zafka"
        command.write_text(f'#!/bin/sh\nexec {sys.executable} -m zafka "$@"\n')
        command.chmod(0o755)
        self._terminal, shell_end = pty.openpty()
        self._process = subprocess.Popen(
            ["bash", "--norc", "--noprofile", "-i"], stdin=shell_end, stdout=shell_end, stderr=shell_end,
            start_new_session=True, cwd=folder,
            env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "TERM": "dumb",
                 "INPUTRC": "/dev/null", "HISTFILE": "", "PS1": "> ", "ZAFKA_BOOTSTRAP": bootstrap, "COLUMNS": "200"})
        os.close(shell_end)
        self.shown = ""
        self.type('bind "set bell-style none"; bind "set enable-bracketed-paste off"; eval "$(zafka completion bash)"; echo r""eady\n')
        self.wait_for("ready")

    def type(self, text: str) -> None:
        self.shown = ""
        os.write(self._terminal, text.encode())

    def wait_for(self, text: str) -> str:
        """All that is shown since the last `type`, once `text` is among it."""
        deadline_s = time.monotonic() + TIMEOUT_S
        while text not in self.shown:
            assert time.monotonic() < deadline_s, f"no {text!r} in {self.shown!r}"
            if select.select([self._terminal], [], [], 0.1)[0]:
                self.shown += os.read(self._terminal, 65536).decode()
        return self.shown

    def line_after_tab(self, line: str) -> str:
        """The line as Tab leaves it; it is not run, but made the text of an `echo` (Ctrl-A and Ctrl-E are its ends)."""
        self.type(f'{line}\t\x01echo "[\x05]"\n')
        return self.wait_for("]\r\n").rsplit("[", 1)[1].partition("]")[0].rstrip()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._terminal)


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with Broker(topics={"orders": 1, "payments": 2}, allow_faults=False) as running:
        yield running


@pytest.fixture
def bash(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bash]:
    bootstrap = request.getfixturevalue("broker").bootstrap_servers if request.param == "cluster" else NOBODY
    shell = Bash(tmp_path, bootstrap)
    yield shell
    shell.close()


@pytest.mark.parametrize("bash", ["cluster"], indirect=True)
def test_bash_completes_commands_options_topics_and_groups(bash: Bash, broker: Broker) -> None:
    with Admin(broker.bootstrap_servers) as admin:
        admin.alter_group_offsets("billing", {("orders", 0): 0})
    for line, completed in [
        ("zafka com", "zafka completion"),
        ("zafka completion ba", "zafka completion bash"),
        ("zafka group desc", "zafka group describe"),
        ("zafka topic create --parti", "zafka topic create --partitions"),
        ("zafka produce orders --compression zs", "zafka produce orders --compression zstd"),
        ("zafka consume pa", "zafka consume payments"),
        ("zafka consume orders -G bi", "zafka consume orders -G billing"),
        (f"zafka consume -b {broker.zmq_bootstrap_servers} o", f"zafka consume -b {broker.zmq_bootstrap_servers} orders"),
        ("zafka consume nosuch", "zafka consume nosuch"),
        ("zafka cluster ", "zafka cluster"),
    ]:
        deadline_s = time.monotonic() + TIMEOUT_S
        while (left := bash.line_after_tab(line)) != completed:  # a busy machine answers too late for a Tab
            assert time.monotonic() < deadline_s, left


@pytest.mark.skipif(shutil.which("fish") is None, reason="there is no fish")
def test_fish_completes_and_shows_all_of_a_description(tmp_path: Path) -> None:
    shim = tmp_path / "zafka"
    shim.write_text(f'#!/bin/sh\nexec {sys.executable} -m zafka "$@"\n')
    shim.chmod(0o755)
    environment = {
        **os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
    done = subprocess.run(
        ["fish", "--no-config", "-c", "zafka completion fish | source; complete -C 'zafka group de'"], check=False, cwd=tmp_path,
        env=environment, capture_output=True, text=True, timeout=TIMEOUT_S)
    told = dict(line.split("\t") for line in done.stdout.splitlines())
    assert told.keys() == {"delete", "describe"}, done.stderr
    assert told["delete"].startswith("Delete groups that have no members, with")


@pytest.mark.parametrize("bash", ["nobody"], indirect=True)
def test_without_a_cluster_bash_completes_what_needs_none_and_says_nothing(bash: Bash) -> None:
    assert bash.line_after_tab("zafka topic al") == "zafka topic alter"
    assert bash.line_after_tab("zafka consume o") == "zafka consume o"
    assert "zafka:" not in bash.shown and "Traceback" not in bash.shown
