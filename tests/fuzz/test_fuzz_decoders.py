"""Every decoder of outside bytes for a moment each, and every input that was a finding once.

FUZZ_SECONDS (default 35): CPU time for all decoders together. FUZZ_SEED: where to begin. By hand: `make fuzz MINUTES=60`.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.fuzz.engine import CORPUS, Campaign, Decoder, Parts, attempt, corpus_of, load, mutate, save, shrink
from tests.fuzz.registry import DECODERS

SEED = int(os.environ.get("FUZZ_SEED", "1"))
SECONDS = float(os.environ.get("FUZZ_SECONDS", "35"))

FINDINGS = [(decoder, path) for decoder in DECODERS for path in corpus_of(decoder)]


@pytest.mark.parametrize("decoder", DECODERS, ids=lambda decoder: decoder.name)
def test_nothing_but_what_a_decoder_may_raise_comes_out(decoder: Decoder) -> None:
    print(f"seed {SEED}")
    campaign = Campaign(decoder, SEED)
    # What the grammar makes is taken, or nothing behind the first check is fuzzed.
    assert any(attempt(decoder, decoder.make(campaign.rng))[0] for _ in range(50))
    campaign.run(SECONDS / len(DECODERS))
    assert not campaign.findings, "\n".join(finding.text for finding in campaign.findings.values())
    assert campaign.executions > 20


@pytest.mark.parametrize(("decoder", "path"), FINDINGS, ids=lambda value: getattr(value, "name", None))
def test_what_was_found_once_is_mended(decoder: Decoder, path: Path) -> None:
    _, finding = attempt(decoder, load(path), memory=True)
    assert finding is None, finding.text


def test_every_finding_belongs_to_a_decoder() -> None:
    assert len(FINDINGS) == len(list(CORPUS.glob("*/*.msgpack"))) > 0


# -- the engine finds what it is for ------------------------------------------------------------------


def _make(rng: object) -> Parts:
    return [b"length 5, five!", b"and a second part"]


def _decoder_with(fault: str) -> Decoder:
    """Takes parts whose first begins with "length"; goes wrong where a byte above 0x7f comes in."""

    def run(parts: Parts) -> None:
        if not parts or not parts[0].startswith(b"length"):
            raise ValueError("not one of ours")
        if any(byte > 0x7F for byte in parts[0]):
            match fault:
                case "raises":
                    raise KeyError("surprise")
                case "hangs":
                    while True:
                        pass
                case "floods":
                    bytearray(64 << 20)
                case "lies":
                    assert len(parts[0]) < 5, "an answer that cannot be"

    return Decoder(fault, _make, run, (ValueError,), seconds_max=0.2)


@pytest.mark.parametrize(
    ("fault", "kind"), [("raises", "raised"), ("hangs", "slow"), ("floods", "memory"), ("lies", "raised"), ("none", "")])
def test_a_planted_fault_is_found_and_no_other(fault: str, kind: str) -> None:
    campaign = Campaign(_decoder_with(fault), seed=1)
    while campaign.executions < 2000 and not campaign.findings:
        campaign.run(60.0, executions_max=campaign.executions + 50)
    assert [finding.kind for finding in campaign.findings.values()][:1] == ([kind] if kind else [])
    assert 0 < campaign.taken < campaign.executions or fault == "hangs"


def test_the_same_seed_gives_the_same_inputs() -> None:
    decoder = _decoder_with("none")
    first, second, other = (Campaign(decoder, seed) for seed in (1, 1, 2))
    inputs = [first.step() for _ in range(200)]
    assert inputs == [second.step() for _ in range(200)] != [other.step() for _ in range(200)]
    assert mutate(inputs[0], inputs[1], first.rng) != mutate(inputs[0], inputs[1], first.rng)


def test_a_finding_is_made_smaller_kept_and_read_again(tmp_path: Path) -> None:
    decoder = _decoder_with("raises")
    _, finding = attempt(decoder, [b"length " + b"x" * 300 + b"\xff" + b"y" * 300, b"rest"])
    assert finding is not None and "KeyError" in finding.text
    small = shrink(decoder, finding)
    assert small.parts == [b"length\xff", b""] or len(small.parts[0]) < 20
    path = save(small, "surprise", tmp_path)
    assert load(path) == small.parts and corpus_of(decoder, tmp_path) == [path]
