"""What holds for all tests."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

# What helpers of tests assert says what differed, as what tests themselves assert does.
pytest.register_assert_rewrite(*(f"tests.{each.name}" for each in Path(__file__).parent.iterdir() if each.is_dir()))

from hypothesis import settings

# Whoever starts tests in the background may have them, and so all that they start, ignore Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes is the machine's matter, which others use as well.
settings.register_profile("any speed", deadline=None)
settings.load_profile("any speed")
