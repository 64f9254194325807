"""The differences that stay, each with its reason: `differences.toml`, and docs/differences.md made from it.

Owns: what an entry covers. "*" stands for any text in `case`, `field`, `ours` and `kafka`; `versions` are exact: an entry that
covers more than what is seen is as wrong as one that covers less.
    python -m tests.differential.table    writes docs/differences.md
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import msgspec

from tests.differential.compare import Difference

TABLE = Path(__file__).with_name("differences.toml")
DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "differences.md"
HEAD = """\
# Where zafka answers otherwise than Apache Kafka

Generated from [tests/differential/differences.toml](../tests/differential/differences.toml), not edited by hand. `tests/differential` sends the same requests to
Apache Kafka 4.3.1 and to zafka, at every version that both serve, and compares the answers field by field. What is not in
this table is equal, apart from what must differ: ids that a broker gives, ports, directories and free space. `*` stands for anything.
"""


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """api: "*" for all. versions: "first..last" of those in which it is seen. case: of the tests."""

    api: str
    versions: str
    field: str
    ours: str
    kafka: str
    why: str
    case: str = "*"

    @property
    def span(self) -> tuple[int, int]:
        first, _, last = self.versions.partition("..")
        return int(first), int(last or first)

    def covers(self, found: Difference) -> bool:
        first, last = self.span
        return (
            first <= found.version <= last and _fits(self.api, found.api) and _fits(self.field, found.field)
            and _fits(self.case, found.case) and _fits(self.ours, found.ours) and _fits(self.kafka, found.kafka))


@cache
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, text.split("*"))), re.DOTALL)


def _fits(pattern: str, text: str) -> bool:
    return _pattern(pattern).fullmatch(text) is not None


def entries() -> list[Entry]:
    return msgspec.convert(tomllib.loads(TABLE.read_text())["difference"], list[Entry])


class Verdict:
    """What of the differences found is not in the table, and what of the table was not found."""

    def __init__(self, found: Iterable[Difference], table: Sequence[Entry]) -> None:
        self.unexplained: list[Difference] = []
        seen: dict[Entry, set[int]] = {entry: set() for entry in table}
        for difference in found:
            covering = [entry for entry in table if entry.covers(difference)]
            if not covering:
                self.unexplained.append(difference)
            for entry in covering[:1]:  # an entry is needed if no earlier one would do
                seen[entry].add(difference.version)
        self.not_needed = [
            f"{entry}: seen at {sorted(versions) or 'no version'}"
            for entry, versions in seen.items() if not versions or (min(versions), max(versions)) != entry.span]


def summary(differences: Iterable[Difference]) -> str:
    """One line for all versions and places in which a case differs in the same way."""
    versions: dict[tuple[str, ...], set[int]] = {}
    for each in differences:
        versions.setdefault((each.api, each.case, each.field, each.ours, each.kafka, each.where), set()).add(each.version)
    return "\n".join(
        f"{api} {min(seen)}..{max(seen)} | {case} | {field} | ours {ours} | kafka {kafka} | {where}"
        for (api, case, field, ours, kafka, where), seen in versions.items())


def document(table: Sequence[Entry]) -> str:
    lines = [HEAD]
    for api in sorted({entry.api for entry in table}):
        lines += [f"## {'Every API' if api == '*' else api}", "", "| versions | case | field | zafka | Kafka | why |",
                  "|---|---|---|---|---|---|"]
        for entry in table:
            if entry.api == api:
                cells = (entry.versions.replace("..", "-"), entry.case, f"`{entry.field}`", _cell(entry.ours),
                         _cell(entry.kafka), entry.why)
                lines.append("| " + " | ".join(cell.strip().replace("\n", " ") for cell in cells) + " |")
        lines.append("")
    return "\n".join(lines)


def _cell(text: str) -> str:
    return "*" if text == "*" else "`" + text.replace("|", "\\|") + "`"


if __name__ == "__main__":
    DOCUMENT.write_text(document(entries()))
