"""How a client's life ends: with the program, by Ctrl-C, twice; and what `import zafka` gives."""

from __future__ import annotations

import gc
import signal
import socket
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import zafka
from tests.unit.client_fake_broker import FakeBroker
from zafka.client.errors import ConfigError, UnknownTopic
from zafka.client.waiting import run
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.messages import MetadataRequest

pytestmark = pytest.mark.timeout(60)

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(params=["kafka", "zmq"])
def broker(request: pytest.FixtureRequest) -> Iterator[FakeBroker]:
    with FakeBroker({"one": 1}, request.param) as broker:
        yield broker


def start_program(text: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", f"import sys, zafka\n{text}", *arguments],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_a_program_that_forgets_to_close_still_delivers(broker: FakeBroker) -> None:
    program = start_program(
        f"p = zafka.Producer({broker.address!r}, linger_ms=1000); p.send('one', b'x')\n"
        f"c = zafka.Consumer('one', bootstrap_servers={broker.address!r})"
    )
    _, err = program.communicate(timeout=30)
    assert (program.returncode, err) == (0, "")
    assert broker.topics["one"][0].end_offset == 1


def test_a_program_that_ends_before_its_records_left_says_so(broker: FakeBroker) -> None:
    broker.fault = lambda api, when: "hang" if api is ApiKey.PRODUCE else None
    program = start_program(f"p = zafka.Producer({broker.address!r}); p.send('one', b'x')")
    _, err = program.communicate(timeout=30)
    assert program.returncode == 0
    assert "1 batches were not acknowledged when the program ended; call close()" in err


@pytest.mark.parametrize(
    "wait",
    [
        "p.send('one', b'x').result()",
        "p.send('one', b'x'); p.flush()",
        "p.send_many('one', [bytes(1000)] * 100_000)",
        "[r for r in c]",
        "c.end_offsets([('one', 0)])",
        "zafka.Producer(sys.argv[1])",
    ],
)
def test_control_c_ends_every_wait(wait: str) -> None:
    with FakeBroker({"one": 1}) as broker, ExitStack() as stack:
        mute = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        waiting = threading.Event()

        def fault(api: ApiKey, when: str) -> str | None:
            if api in (ApiKey.PRODUCE, ApiKey.LIST_OFFSETS):
                waiting.set()
                return "hang"
            return None

        broker.fault = fault
        program = start_program(
            f"p = zafka.Producer({broker.address!r}, buffer_memory=100_000)\n"
            f"c = zafka.Consumer('one', bootstrap_servers={broker.address!r})\n"
            f"print('ready', flush=True)\n{wait}",
            f"127.0.0.1:{mute.getsockname()[1]}",
        )
        assert program.stdout is not None and program.stdout.readline() == "ready\n"
        if "argv" in wait:
            connection, _ = mute.accept()  # nobody answers there
            stack.callback(connection.close)
        else:
            assert waiting.wait(20)
        program.send_signal(signal.SIGINT)
        _, err = program.communicate(timeout=20)
        assert "KeyboardInterrupt" in err
        assert program.returncode != 0


@pytest.mark.parametrize("unseen", [False, True], ids=["", "unseen"])
@pytest.mark.parametrize("wait", ["await (await p.send('one', b'x'))", "await p.flush()", "await anext(aiter(c))"])
def test_control_c_ends_an_asyncio_program(broker: FakeBroker, wait: str, unseen: bool) -> None:
    """`asyncio.run` cancels the main task: both clients are left by their `async with`, and nothing is complained of.

    unseen: the signal does not end the system call in which the loop waits, as if it had come the instant before.
    """
    waiting = threading.Event()

    def fault(api: ApiKey, when: str) -> str | None:
        if api not in (ApiKey.PRODUCE, ApiKey.LIST_OFFSETS):
            return None
        waiting.set()
        return "hang"

    broker.fault = fault
    program = start_program(
        "import asyncio, signal\nasync def main():\n"
        f"    async with (zafka.AsyncProducer({broker.address!r}) as p,\n"
        f"                zafka.AsyncConsumer('one', bootstrap_servers={broker.address!r}) as c):\n"
        "        if 'c' != sys.argv[1]: await p.send('one', b'first')\n"
        f"        if {unseen}: signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # another thread takes it\n"
        "        try:\n"
        "            print('ready', flush=True)\n"
        f"            {wait}\n"
        "        except asyncio.CancelledError:\n"
        "            print('cancelled', flush=True); raise\n"
        "asyncio.run(main())\n",
        "c" if "aiter" in wait else "p",
    )
    assert program.stdout is not None and program.stdout.readline() == "ready\n"
    assert waiting.wait(20)
    program.send_signal(signal.SIGINT)
    out, err = program.communicate(timeout=20)
    assert out == "cancelled\n"
    assert err.rstrip().endswith("KeyboardInterrupt") and program.returncode != 0
    assert "never retrieved" not in err and "was destroyed" not in err and "never closed" not in err


def test_closing_twice_and_using_after(broker: FakeBroker) -> None:
    before = threading.enumerate()
    with zafka.Producer(broker.address) as producer:
        producer.close()
    with zafka.Consumer("one", bootstrap_servers=broker.address) as consumer:
        consumer.close()
    assert "closed" in repr(producer) and "closed" in repr(consumer)
    left = [thread for thread in threading.enumerate() if thread not in before]
    assert not [thread for thread in left if thread.name.startswith("zafka-")]


def test_a_client_that_was_never_made_says_nothing_when_it_is_collected(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    with pytest.raises(ConfigError):
        zafka.Consumer(auto_offset_reset="smallest")
    gc.collect()
    assert not told


def test_a_client_from_before_a_fork_says_so(broker: FakeBroker) -> None:
    program = start_program(
        "import os\n"
        f"p = zafka.Producer({broker.address!r}); c = zafka.Consumer('one', bootstrap_servers={broker.address!r})\n"
        "p.send('one', b'parent').result(5)\n"
        "if os.fork() == 0:\n"
        "    for use in (lambda: p.send('one', b'child'), lambda: c.poll(1), lambda: c.end_offsets([('one', 0)])):\n"
        "        try: use()\n"
        "        except zafka.ZafkaError as error: print(error, flush=True)\n"
        "else:\n"
        "    os.wait(); print(p.send('one', b'parent').result(5).offset)\n"
    )
    out, _ = program.communicate(timeout=30)
    assert out.splitlines() == ["this client was made before a fork; make one in the child process"] * 3 + ["1"]


def test_a_client_that_is_collected_warns_and_its_records_arrive(broker: FakeBroker) -> None:
    """The I/O thread does not keep the client alive, sends what waits, and ends by itself."""

    def left() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread not in before and thread.name.startswith("zafka-")]

    before = threading.enumerate()
    producer: zafka.Producer | None = zafka.Producer(broker.address, linger_ms=60_000)
    assert producer is not None
    producer.send("one", b"x")
    with pytest.warns(ResourceWarning, match="<Producer .* was never closed"):
        producer = None
    consumer: zafka.Consumer | None = zafka.Consumer("one", bootstrap_servers=broker.address)
    assert consumer is not None
    with pytest.warns(ResourceWarning, match="<Consumer .* was never closed"):
        consumer = None
    admin: zafka.Admin | None = zafka.Admin(broker.address)
    assert admin is not None
    with pytest.warns(ResourceWarning, match="<Admin .* was never closed"):
        admin = None
    deadline_s = time.monotonic() + 20
    while left():
        assert time.monotonic() < deadline_s, left()
        threading.Event().wait(0.02)
    assert broker.topics["one"][0].end_offset == 1


def test_a_program_that_drops_its_producer_at_its_end_still_delivers(broker: FakeBroker) -> None:
    program = start_program(
        f"def work():\n    p = zafka.Producer({broker.address!r}, linger_ms=1000); p.send('one', b'x')\nwork()\n"
    )
    _, err = program.communicate(timeout=30)
    assert (program.returncode, err) == (0, "")
    assert broker.topics["one"][0].end_offset == 1


def test_an_async_program_that_forgets_to_close_still_delivers(broker: FakeBroker) -> None:
    program = start_program(
        "import asyncio\nasync def main():\n"
        f"    global p\n    p = zafka.AsyncProducer({broker.address!r}, linger_ms=1000)\n"
        "    await p.start()\n    await p.send('one', b'x')\nasyncio.run(main())\n"
    )
    _, err = program.communicate(timeout=30)
    assert (program.returncode, err) == (0, "")
    assert broker.topics["one"][0].end_offset == 1


def test_a_child_makes_clients_of_its_own_and_the_parent_goes_on(broker: FakeBroker) -> None:
    program = start_program(
        "import os\n"
        f"p = zafka.Producer({broker.address!r}, linger_ms=50); waiting = p.send('one', b'parent')\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        f"    with zafka.Producer({broker.address!r}) as own: own.send('one', b'child').result(10)\n"
        "    raise SystemExit(0)\n"
        "status = os.waitpid(pid, 0)[1]\n"
        "waiting.result(10); p.send('one', b'parent').result(10); p.close(); print('status', status)\n"
    )
    out, err = program.communicate(timeout=30)
    assert (out, err, program.returncode) == ("status 0\n", "", 0)
    # What waited in the parent when it forked was not sent by the child, too.
    assert broker.topics["one"][0].end_offset == 3


def test_importing_is_quick_and_light() -> None:
    """By what is loaded, which does not depend on the machine: a blocking producer needs no asyncio and no broker."""
    heavy = "import sys, zafka; zafka.Producer; print([n for n in ('asyncio', 'rich', 'click', 'uvloop', 'yaml') if n in sys.modules])"
    out = subprocess.run([sys.executable, "-c", heavy], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert out == "[]\n"


def test_an_unknown_topic_is_not_asked_for_for_ever(broker: FakeBroker) -> None:
    with zafka.Producer(broker.address) as producer:
        with pytest.raises(UnknownTopic):
            producer.send("nowhere", b"x")
        broker.topics["nowhere"] = broker.topics["one"]
        assert producer.send("nowhere", b"x").result(5).offset == 0
        with pytest.raises(UnknownTopic):
            producer.send("nowhere-else", b"x")
        run(producer._core.ask(1, ApiKey.METADATA, MetadataRequest(), 5.0))  # a turn later
        assert not producer._core.cluster.wants("nowhere-else")


def test_public_names_are_imported_when_used() -> None:
    for name in zafka.__all__:
        assert getattr(zafka, name) is not None
    assert set(zafka.__all__) <= set(dir(zafka))
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = zafka.Nothing
    modules = ("zmq", "msgspec", "asyncio", "zafka.client.producer")
    heavy = f"import sys, zafka; print([name for name in {modules} if name in sys.modules])"
    out = subprocess.run([sys.executable, "-c", heavy], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert out == "[]\n"


def test_the_version_is_the_projects() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert zafka.__version__ == project["version"]
