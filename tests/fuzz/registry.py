"""Every decoder of bytes that others wrote: the one list that tests, `make fuzz` and docs/fuzzing.md go by."""

from __future__ import annotations

from tests.fuzz import client_decoders, runtime_decoders, storage_decoders, wire_decoders
from tests.fuzz.engine import Decoder

DECODERS: list[Decoder] = [
    *wire_decoders.decoders(),
    *client_decoders.decoders(),
    *storage_decoders.decoders(),
    *runtime_decoders.decoders(),
]
BY_NAME = {decoder.name: decoder for decoder in DECODERS}
assert len(BY_NAME) == len(DECODERS)
