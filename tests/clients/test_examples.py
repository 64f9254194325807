"""Each example runs against a real broker, and types like a user's strict program; the reference is up to date."""

from __future__ import annotations

import inspect
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import zafka
from zafka.testing import Broker

pytestmark = pytest.mark.timeout(180)

ROOT = Path(__file__).resolve().parent.parent.parent
MYPY = (sys.executable, "-m", "mypy", "--config-file=", "--follow-imports=silent")
CLIENT_EXAMPLES = {  # and what they print at the end
    "hello.py": "the last one is b'line ",
    "async_client.py": "records up to offset 1099",
    "batches.py": "behind by 0",
    "admin.py": "deleted",
    "partitioner.py": "vip is in partition 0",
    "serializers.py": "u2 {'order': 2, 'total': 3.0}",
}


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with Broker(allow_faults=False) as broker:
        yield broker


def run_example(name: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", str(ROOT / "examples" / name), *arguments],
        check=False, capture_output=True, text=True, timeout=120, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return done.stdout


@pytest.mark.parametrize("name", CLIENT_EXAMPLES)
def test_a_client_example(broker: Broker, name: str) -> None:
    assert CLIENT_EXAMPLES[name] in run_example(name, broker.zmq_bootstrap_servers)


def test_the_testing_broker_example() -> None:
    assert "once each and in order" in run_example("testing_broker.py")


def test_the_example_of_a_group() -> None:
    assert run_example("group.py").endswith("Empty 300\n")


def test_the_example_of_a_test_file(tmp_path: Path) -> None:
    shutil.copy(ROOT / "examples" / "test_orders.py", tmp_path)  # without the settings of this repository
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "zafka.pytest_plugin", "-p", "no:cacheprovider", "-q"],
        check=False, capture_output=True, text=True, timeout=120, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )  # fmt: skip
    assert done.returncode == 0 and "2 passed" in done.stdout, done.stdout + done.stderr


def test_examples_pass_mypy_strict(tmp_path: Path) -> None:
    """As a user's program sees the package: through py.typed, with no settings of ours."""
    files = [str(ROOT / "examples" / name) for name in (*CLIENT_EXAMPLES, "testing_broker.py", "group.py", "test_orders.py")]
    done = subprocess.run(
        [*MYPY, "--strict", "--cache-dir", str(tmp_path / "cache"), *files],
        check=False, cwd=tmp_path, capture_output=True, text=True, timeout=170, env={**os.environ, "MYPYPATH": str(ROOT)},
    )  # fmt: skip
    wrong = [line for line in done.stdout.splitlines() if "examples/" in line]
    assert not wrong and "error" not in done.stderr, done.stdout + done.stderr
    assert "Any" not in reveal(tmp_path, "zafka.Producer().send('t').result()"), "the package has lost its types"


def reveal(tmp_path: Path, expression: str) -> str:
    (tmp_path / "reveal.py").write_text(f"import zafka\nreveal_type({expression})\n")
    done = subprocess.run(
        [*MYPY, "--cache-dir", str(tmp_path / "cache"), "reveal.py"],
        check=False, cwd=tmp_path, capture_output=True, text=True, timeout=170, env={**os.environ, "MYPYPATH": str(ROOT)},
    )  # fmt: skip
    found = re.search(r'Revealed type is "(.*)"', done.stdout)
    assert found is not None, done.stdout
    return found.group(1)


def test_the_reference_is_up_to_date_and_complete() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "write_client_reference.py"), "--check"]
    done = subprocess.run(command, check=False, timeout=60)
    assert done.returncode == 0, "run python scripts/write_client_reference.py"
    text = (ROOT / "docs" / "client.md").read_text()
    missing = [name for name in zafka.__all__ if name not in text and name not in ("__version__", "actor")]
    assert not missing


@pytest.mark.parametrize("name", ["Producer", "Consumer", "Admin"])
def test_every_keyword_is_explained(name: str) -> None:
    kind = getattr(zafka, name)
    explained = inspect.getdoc(kind) or ""
    for keyword in inspect.signature(kind.__init__).parameters:
        if keyword != "self":
            assert re.search(rf"\b{keyword}\b[^.]*[:=]", explained), f"{keyword} of {name} is not explained"
    twin = getattr(zafka, f"Async{name}")
    public = {member for member in dir(kind) if not member.startswith("_")} - {"start"}
    assert public <= set(dir(twin)), "the async twin lacks something"
