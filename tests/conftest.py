"""What holds for all tests."""

from __future__ import annotations

import signal

from hypothesis import settings

# Whoever starts tests in the background may have them, and so all that they start, ignore Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes is the machine's matter, which others use as well.
settings.register_profile("any speed", deadline=None)
settings.load_profile("any speed")
