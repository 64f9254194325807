"""A Python function while it is being written, for the two compilers of message layouts.

Owns: indentation, and the function's namespace with the `struct.Struct`s and message classes that it uses.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from struct import Struct
from typing import Any

from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.layout import Api
from zafka.transport.kafka.types import ZERO_UUID

# struct's letters for everything of fixed size, big-endian and without padding.
FIXED = {"int8": "b", "int16": "h", "int32": "i", "int64": "q", "bool": "?", "uuid": "16s", "float64": "d", "uint16": "H"}


class Source:
    def __init__(self, api: Api, version: int, **namespace: Any) -> None:
        self.name = f"{api.name} v{version}"
        self.namespace: dict[str, Any] = {"ZERO_UUID": ZERO_UUID, **namespace}
        self._messages = importlib.import_module(api.module or f"zafka.transport.kafka.messages.{_module(api)}")
        self._lines: list[str] = []
        self._indent = ""

    def line(self, text: str) -> None:
        self._lines.append(self._indent + text)

    @contextmanager
    def block(self, header: str) -> Iterator[None]:
        self.line(header)
        self._indent += "    "
        yield
        self._indent = self._indent[:-4]

    def message_class(self, name: str) -> str:
        self.namespace[name] = getattr(self._messages, name)
        return name

    def struct_method(self, letters: str, method: str) -> str:
        """The name, in the function, of `pack` or `unpack_from` for these letters."""
        name = f"{method}_{letters.replace('?', 'o')}"
        self.namespace[name] = getattr(Struct(">" + letters), method)
        return name

    def text(self) -> str:
        return "\n".join(self._lines) + "\n"

    def function(self, name: str) -> Any:
        exec(compile(self.text(), f"<{name} {self.name}>", "exec"), self.namespace)  # noqa: S102 - the text comes from our own layouts
        return self.namespace[name]


def _module(api: Api) -> str:
    return ApiKey(api.key).name.lower()
