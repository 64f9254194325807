"""What a user of the processes can mend: each message says what, where, and what would be right."""

from __future__ import annotations


class RuntimeFault(Exception):
    """Root of the errors of this folder."""


class CannotStart(RuntimeFault):
    """Nothing was started: the data directory, a port or the machine does not allow it."""


class LogRefused(RuntimeFault):
    """A partition's files cannot be looked at or mended as they are, or there are none."""


class NotRunning(RuntimeFault):
    """No supervisor runs on this data directory, or it does not answer."""


class Refused(RuntimeFault):
    """The supervisor answered that it cannot do what was asked."""


class TreeFailed(RuntimeFault):
    """Supervision gave up: what was restarted over and over, and how it ended each time."""
