"""Imports without what they bring along and nobody here uses; a start counts every millisecond.

Owns: `import_structlog`, `import_crc32c`. Each leaves `sys.modules` as it was, apart from what it imported.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

_ABSENT = object()


def import_structlog() -> Any:
    """structlog without rich, which it would import for pretty tracebacks: 50 ms and 4 MB."""
    with _instead("rich", None):
        import structlog
    return structlog


def import_crc32c() -> None:
    """crc32c without importlib.metadata, which it asks for its own version: 16 ms."""
    metadata = ModuleType("importlib.metadata")
    metadata.version = lambda name: ""  # type: ignore[attr-defined]
    with _instead("importlib.metadata", metadata):
        import crc32c  # noqa: F401


@contextmanager
def _instead(name: str, module: ModuleType | None) -> Iterator[None]:
    """While this lasts, an import of `name` finds `module`; None: it fails."""
    before: Any = sys.modules.get(name, _ABSENT)
    if isinstance(before, ModuleType):
        yield  # too late to save anything
        return
    sys.modules[name] = module  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]
        if before is not _ABSENT:
            sys.modules[name] = before
