"""Real text for the demo: a given file, or what is on any machine: logs, licences, the standard library's sources.

Owns: choosing the files and reading them line by line. Files that change while they are read do no harm: what counts
is what was read, once.
"""

from __future__ import annotations

import itertools
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

LINES_WANTED = 120_000
FILE_BYTES_MAX = 8 * 1024 * 1024  # a larger log would be the whole demo


class Text(NamedTuple):
    """A text file as found: `key` is its name, `lines` how many lines it had when it was counted."""

    key: str
    path: Path
    lines: int


def one_file(path: Path) -> list[Text]:
    """Raises OSError if it cannot be read."""
    return [Text(path.name, path, _count_lines(path))]


def texts_of_this_machine(wanted: int = LINES_WANTED) -> list[Text]:
    """Files with `wanted` lines together, or as many as there are."""
    found: list[Text] = []
    lines = 0
    for path in _candidates():
        if lines >= wanted:
            break
        try:
            if not path.is_file() or not 0 < path.stat().st_size <= FILE_BYTES_MAX:
                continue
            text = Text(str(path), path, _count_lines(path))
        except OSError:
            continue  # not ours to read, or gone
        found.append(text)
        lines += text.lines
    return found


def _candidates() -> Iterator[Path]:
    """Some of each kind first, then sources without end."""
    library = Path(sysconfig.get_path("stdlib"))
    yield from itertools.islice(_sorted(Path("/var/log").glob("*.log")), 20)
    yield from itertools.islice(_sorted(Path("/usr/share/common-licenses").glob("*")), 30)
    yield from itertools.islice(_sorted(Path("/usr/share/doc").glob("*/copyright")), 40)
    yield from _sorted(path for path in library.rglob("*.py") if "site-packages" not in path.parts)


def _sorted(paths: Iterable[Path]) -> Iterator[Path]:
    try:
        yield from sorted(paths)
    except OSError:
        return


def read_lines(text: Text) -> Iterator[bytes]:
    """The lines without their ends."""
    with text.path.open("rb") as file:
        for line in file:
            yield line.rstrip(b"\r\n")


def _count_lines(path: Path) -> int:
    return sum(1 for _ in read_lines(Text("", path, 0)))


def describe(texts: list[Text]) -> str:
    """What was taken, for people: number of files and lines by folder."""
    if len(texts) == 1:
        return f"{texts[0].path} ({texts[0].lines:,} lines)"
    kinds: dict[str, tuple[int, int]] = {}
    library = sysconfig.get_path("stdlib")
    for text in texts:
        kind = next(
            (name for start, name in (
                ("/var/log", "logs in /var/log"), ("/usr/share/common-licenses", "licences"),
                ("/usr/share/doc", "copyright files"), (library, "the standard library's sources"),
            ) if text.key.startswith(start)), "other files")
        files, lines = kinds.get(kind, (0, 0))
        kinds[kind] = (files + 1, lines + text.lines)
    return ", ".join(f"{kind} ({files} files, {lines:,} lines)" for kind, (files, lines) in kinds.items())
