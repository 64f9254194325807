"""Logs: one JSON line per event on standard error, with actor and incarnation; readable lines on a terminal.

What went as everybody expects is debug: in the JSON lines, and not on a terminal.

Owns: the configuration of structlog in root and actors. Modules write `logger = structlog.get_logger(__name__)`.
Importing this is cheap; structlog comes with the first call. An uncaught exception is one line too.
"""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

from zafka.runtime.preload import import_structlog

DEBUG, INFO = 10, 20


def configure_logging(*, actor: str, incarnation: int) -> None:
    """From now on this process logs as `actor`, and says why it ends if an exception ends it."""
    structlog = import_structlog()

    def add_actor(logger: Any, method: str, event: dict[str, Any]) -> dict[str, Any]:
        """Who says it; and what all lines have comes first."""
        who = {"actor": actor, "incarnation": incarnation, "event": event.pop("event")}
        return {"timestamp": event.pop("timestamp"), "level": event.pop("level"), **who, **event}

    terminal = sys.stderr.isatty()
    processors: list[Any] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S.%f" if terminal else "iso", utc=not terminal),
        add_actor,
    ]
    factory: Any
    if terminal:
        processors.append(structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback))
        factory = structlog.PrintLoggerFactory(sys.stderr)
    else:
        processors += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(serializer=_to_json)]
        # Unbuffered: a line is one write, so that lines of several processes do not mix.
        factory = structlog.BytesLoggerFactory(open(2, "wb", buffering=0, closefd=False))  # noqa: SIM115
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(INFO if terminal else DEBUG),
        logger_factory=factory,
        cache_logger_on_first_use=True,
    )
    sys.excepthook = log_exception


def log_exception(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """`sys.excepthook`: one line with the traceback."""
    logger = import_structlog().get_logger()
    logger.critical("uncaught exception", error=f"{kind.__name__}: {error}", exc_info=(kind, error, trace))


def _to_json(event: object, **_: object) -> bytes:
    import msgspec

    return msgspec.json.encode(event, enc_hook=str)
