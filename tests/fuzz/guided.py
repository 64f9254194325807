"""One decoder under atheris, guided by coverage: by hand, where atheris is installed (`pip install atheris`; not a dependency).

    python -m tests.fuzz.guided DECODER [libFuzzer's options, such as -max_total_time=300]

An input is cut into as many parts as the decoder's grammar makes; findings are those of `engine.attempt`. libFuzzer
keeps its corpus and what it found in `build/guided/<decoder>/`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random

import atheris

with atheris.instrument_imports(include=["zafka"]):
    from tests.fuzz.engine import Decoder, Parts, attempt
    from tests.fuzz.registry import BY_NAME

SEPARATOR = b"\x00\xfe\xff\x7a"  # between parts


def seeds(decoder: Decoder, folder: Path, number: int = 50) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng = Random(1)
    for index in range(number):
        (folder / f"seed-{index}").write_bytes(SEPARATOR.join(decoder.make(rng)))


def main(arguments: list[str]) -> None:
    decoder = BY_NAME[arguments[1]]
    folder = Path("build/guided") / decoder.name.replace(" ", "-")
    seeds(decoder, folder / "corpus")

    def one(data: bytes) -> None:
        parts: Parts = data.split(SEPARATOR)
        finding = attempt(decoder, parts)[1]
        if finding is None and decoder.seal is not None:
            finding = attempt(decoder, decoder.seal(parts))[1]
        if finding is not None:
            raise RuntimeError(finding.text)

    options = ["-max_len=65536", f"-artifact_prefix={folder}/", *arguments[2:]]
    atheris.Setup([arguments[0], str(folder / "corpus"), *options], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv)
