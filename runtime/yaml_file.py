"""A YAML file as a tree in which every value knows its path and line.

Owns: reading YAML safely (plain values only, no doubled keys, bounded size), and the errors about single values:
each names file, line, path, reason and, for a key, the nearest valid one.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any, NoReturn

from zafka.runtime.errors import RuntimeFault

MAX_FILE_BYTES = 4 * 1024 * 1024
MAX_NODES = 200_000  # aliases within aliases grow without bound
MAX_DEPTH = 20
MAX_NUMBER = 2**63  # no setting has a larger one

DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")
UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class TopologyError(RuntimeFault):
    """The topology, or a flag or variable that changes it, or a fault plan, cannot be run. The message is for its author."""


class Value:
    """One value of the file. `plain` is a str, int, float, bool, None, list[Value], dict[str, Value] or odd."""

    __slots__ = ("file", "line", "path", "plain")

    def __init__(self, plain: Any, *, path: str, line: int, file: str) -> None:
        self.plain = plain
        self.path = path
        self.line = line  # 0: not from a file
        self.file = file

    def fail(self, reason: str) -> NoReturn:
        """Raise TopologyError at this place."""
        place = f"{self.file}, line {self.line}: " if self.line else f"{self.file}: " if self.file else ""
        raise TopologyError(f"{place}{self.path + ': ' if self.path else ''}{reason}")

    def fields(self, known: Collection[str], *, required: Collection[str] = ()) -> dict[str, Value]:
        """A mapping with these keys at most. Keys whose value is null count as left out."""
        fields = self.mapping()
        for key, value in fields.items():
            if key not in known:
                value.fail(unknown_key(key, known))
        for key in required:
            if key not in fields:
                self.fail(f"{key!r} is missing")
            if fields[key].plain is None:
                fields[key].fail("must not be empty")
        return {key: value for key, value in fields.items() if value.plain is not None}

    def mapping(self) -> dict[str, Value]:
        if not isinstance(self.plain, dict):
            self.fail(f"must be a mapping (key: value), not {self.described()}")
        return self.plain

    def items(self) -> list[Value]:
        if not isinstance(self.plain, list):
            self.fail(f"must be a list, not {self.described()}")
        return self.plain

    def integer(self, low: int, high: int) -> int:
        if not isinstance(self.plain, int) or isinstance(self.plain, bool):
            self.fail(f"must be a whole number, not {self.described()}")
        if not low <= self.plain <= high:
            self.fail(f"must be {low} to {high}, not {self.plain}")
        return self.plain

    def number(self, low: float, high: float) -> float:
        if not isinstance(self.plain, int | float) or isinstance(self.plain, bool):
            self.fail(f"must be a number, not {self.described()}")
        if not low <= self.plain <= high:
            self.fail(f"must be {low:g} to {high:g}, not {self.plain}")
        return float(self.plain)

    def text(self) -> str:
        if not isinstance(self.plain, str):
            self.fail(f"must be text, not {self.described()}; put it in quotes if it is meant as text")
        if not self.plain:
            self.fail("must not be empty")
        return self.plain

    def boolean(self) -> bool:
        if not isinstance(self.plain, bool):
            self.fail(f"must be true or false, not {self.described()}")
        return self.plain

    def choice(self, choices: Collection[str]) -> str:
        text = self.text()
        if text not in choices:
            self.fail(f"must be one of {', '.join(choices)}, not {text!r}{did_you_mean(text, choices)}")
        return text

    def duration_s(self, low_s: float, high_s: float) -> float:
        """A number with a unit, as seconds."""
        match = DURATION.fullmatch(self.plain) if isinstance(self.plain, str) else None
        if match is None:
            self.fail(f"must be a time with its unit, such as 500ms, 10s or 5m, not {self.described()}")
        seconds = float(match[1]) * UNIT_S[match[2]]
        if not low_s <= seconds <= high_s:
            self.fail(f"must be {low_s:g}s to {high_s:g}s, not {self.plain}")
        return seconds

    def kafka_text(self) -> str:
        """A scalar as Kafka writes configuration values."""
        if isinstance(self.plain, bool):
            return "true" if self.plain else "false"
        if isinstance(self.plain, int | float | str):
            return str(self.plain)
        self.fail(f"must be a number, text, true or false, not {self.described()}")

    def described(self) -> str:
        match self.plain:
            case None:
                return "nothing"
            case bool():
                return "true" if self.plain else "false"
            case int() | float():
                return f"the number {self.plain}"
            case str():
                return f"the text {self.plain!r}"
            case list():
                return "a list"
            case dict():
                return "a mapping"
            case _:
                return f"a {type(self.plain).__name__} ({self.plain})"


def unknown_key(key: str, known: Collection[str]) -> str:
    return "unknown key" + (did_you_mean(key, known) or f"; known here: {', '.join(known)}")


def did_you_mean(text: str, known: Collection[str]) -> str:
    """"; did you mean ...?" with the nearest valid word, or "" if none is near."""
    import difflib

    near = difflib.get_close_matches(text, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""


def read_yaml(path: Path) -> Value:
    """The file's one document. Raises TopologyError: no such file, not YAML, doubled keys, too large."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise TopologyError(f"{path}: no such file") from None
    except OSError as error:
        raise TopologyError(f"{path}: cannot be read: {error.strerror}") from None
    if len(data) > MAX_FILE_BYTES:
        raise TopologyError(f"{path}: {len(data)} bytes are more than such a file may have ({MAX_FILE_BYTES})")
    import yaml  # only here: without a file there is no need for it

    loader_class: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        loader = loader_class(data)
        try:
            return _Builder(loader, str(path)).build(loader.get_single_node(), "", depth=0)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        context = f" ({error.context})" if error.context else ""
        raise TopologyError(f"{path}{line}: not valid YAML: {error.problem}{context}") from None
    except (yaml.YAMLError, ValueError, UnicodeError) as error:
        raise TopologyError(f"{path}: not valid YAML: {str(error).splitlines()[0]}") from None


class _Builder:
    """Turns PyYAML's nodes into `Value`s."""

    def __init__(self, loader: Any, file: str) -> None:
        self.loader = loader
        self.file = file
        self.nodes = 0

    def build(self, node: Any, path: str, *, depth: int, line: int = 0) -> Value:
        if node is None:
            return Value({}, path=path, line=0, file=self.file)
        value = Value(None, path=path, line=line or node.start_mark.line + 1, file=self.file)
        self.nodes += 1
        if depth > MAX_DEPTH or self.nodes > MAX_NODES:
            value.fail("too deep or too large")
        if node.id == "mapping":
            value.plain = self._mapping(node, path, depth)
        elif node.id == "sequence":
            value.plain = [
                self.build(item, f"{path}[{number}]", depth=depth + 1) for number, item in enumerate(node.value)
            ]
        else:
            value.plain = self._scalar(node, value)
        return value

    def _scalar(self, node: Any, value: Value) -> Any:
        try:
            plain = self.loader.construct_object(node)
        except (ValueError, LookupError, AttributeError, OverflowError):  # from PyYAML, for a tag that does not fit
            value.fail(f"{node.value[:50]!r} is no {node.tag.rpartition(':')[2]}")
        if isinstance(plain, int) and abs(plain) > MAX_NUMBER:
            value.fail("the number is larger than any that could be meant")
        if isinstance(plain, str) and "\0" in plain:
            value.fail("text must not contain the character NUL")
        return plain

    def _mapping(self, node: Any, path: str, depth: int) -> dict[str, Value]:
        lines: dict[str, int] = {}
        for key_node, _ in node.value:
            key, line = str(key_node.value), key_node.start_mark.line + 1
            if key_node.id != "scalar":
                Value(None, path=path, line=line, file=self.file).fail("a key must be text")
            if key in lines and key != "<<":
                inner = f"{path}.{key}" if path else key
                Value(None, path=inner, line=line, file=self.file).fail(
                    f"the key is there twice; first in line {lines[key]}")
            lines[key] = line
        self._count_merged(node, 0)
        self.loader.flatten_mapping(node)  # brings in what "<<" names, before the mapping's own keys
        return {
            key_node.value: self.build(
                value_node, f"{path}.{key_node.value}" if path else key_node.value,
                depth=depth + 1, line=key_node.start_mark.line + 1)
            for key_node, value_node in node.value
        }

    def _count_merged(self, node: Any, depth: int) -> None:
        """Refuse "<<" within "<<" that would grow without bound, before it does."""
        for key_node, value_node in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                for merged in value_node.value if value_node.id == "sequence" else [value_node]:
                    self.nodes += len(merged.value) if merged.id == "mapping" else 1
                    if depth > MAX_DEPTH or self.nodes > MAX_NODES:
                        line = node.start_mark.line + 1
                        Value(None, path="", line=line, file=self.file).fail("too deep or too large for a topology")
                    if merged.id == "mapping":
                        self._count_merged(merged, depth + 1)
