"""Commands of `zafka` in the process of the test: a process of its own for each takes ten times as long as what it does.

What a process does (signals, pipes, its exit) is tested with one, where it matters.
"""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
from typing import NamedTuple
from unittest import mock

from zafka.runtime.cli import main


class Ended(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


def zafka(*arguments: str, data: str = "") -> Ended:
    """Run a command to its end. data: its standard input."""
    out, err = io.TextIOWrapper(io.BytesIO(), encoding="utf-8"), io.StringIO()
    with tempfile.TemporaryFile("w+") as stdin:
        stdin.write(data)
        stdin.seek(0)
        with (
            mock.patch.object(sys, "stdin", stdin), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err),
        ):
            code = main(arguments)
    out.seek(0)
    return Ended(code, out.read(), err.getvalue())
