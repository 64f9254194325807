"""The recorder finds every request header, however the bytes of a connection are cut."""

from __future__ import annotations

import random
import struct

import pytest

from tests.clients.matrix.recorder import Recorder


def frame(api: int, version: int, client: bytes | None, body: bytes) -> bytes:
    name = struct.pack(">h", -1) if client is None else struct.pack(">h", len(client)) + client
    content = struct.pack(">hhi", api, version, 7) + name + body
    return struct.pack(">i", len(content)) + content


@pytest.mark.parametrize("seed", range(20))
def test_headers_are_found_in_pieces_of_any_size(seed: int) -> None:
    chance = random.Random(seed)
    stream, wanted = b"", set()
    for _ in range(50):
        api, version, client = chance.randrange(90), chance.randrange(20), chance.choice([b"a", b"some client", None])
        stream += frame(api, version, client, chance.randbytes(chance.choice([0, 1, 30, 5000])))
        wanted.add(((client or b"").decode(), api, version))
    recorder = Recorder()
    tap = recorder.tap()
    while stream:
        size = chance.choice([1, 3, 13, 14, 200, 20_000])
        tap(stream[:size])
        stream = stream[size:]
    found = {
        (client, api, version)
        for client, apis in recorder.told().items() for api, versions in apis.items() for version in versions}
    assert found == wanted
