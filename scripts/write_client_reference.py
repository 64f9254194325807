#!/usr/bin/env python3
"""Write docs/client.md, the reference of the Python client, from its signatures and docstrings.

    python scripts/write_client_reference.py            # writes
    python scripts/write_client_reference.py --check    # exit code 1 if what is there is not up to date
"""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from typing import Any

import zafka
from zafka.client import errors

TARGET = Path(__file__).resolve().parent.parent / "docs" / "client.md"

HEAD = """# The Python client

What `import zafka` gives, for programs. This file is written by `scripts/write_client_reference.py`; a test holds it up to date.

One client, two protocols: `tcp://host:port` and `ipc://path` are zafka's ZeroMQ door, `host:port` is Kafka's protocol, which also
works with Apache Kafka. Everything is typed (`py.typed`; programs that use it pass `mypy --strict`). Examples: [examples/](../examples/).

- **Blocking or asyncio.** `Producer`, `Consumer` and `Admin` block; `AsyncProducer`, `AsyncConsumer` and `AsyncAdmin` are the same
  clients for asyncio, with the same arguments. Each client object has one thread of its own for its sockets.
- **Groups.** With `group_id` consumers share topics, with any Kafka client, in KIP-848's protocol or the classic one (`group_protocol`). Heartbeats go on in the client's thread while a program works. What was
  handed out is committed by the next call, or by `commit`; partitions change hands inside `poll` or iteration only, after `on_rebalance`
  was told; so `poll` may take longer than its timeout while they do.
- **Order and safety.** A producer is idempotent by default: what is acknowledged is on disk once, and the records of one partition keep
  the order in which they were sent, over lost connections and restarts of brokers, which clients sit out by themselves.
- **On one machine** a producer at a ZeroMQ door hands its batches straight to the partitions, past the broker, if it runs as the user that runs
  them: faster, and otherwise the same. `direct=False` turns that off.
- **Cancelling** an async call ends it where it waits. A record that a cancelled `send` had not queued yet is not sent; a cancelled `poll`
  loses no record; a cancelled `close` gives up what is not acknowledged.
- **Processes.** After `os.fork` the parent's clients go on; in the child they raise ClientClosed, so make new ones there. At the end of a
  program that did not close them, producers get 2 s for what waits and say what is lost, and members leave their groups, which takes 1 s at most. These commit nothing:
  nobody knows whether what was handed out last was worked on, so it comes again. A client that is garbage collected without `close`
  warns (ResourceWarning), and does the same.
- **Partitioners.** Kafka's Java clients hash keys with murmur2 (ours by default), librdkafka's with CRC-32: say `partitioner="crc32"`
  where both write the same keys.
- Seconds are floats; what ends in `_ms` are milliseconds. A consumer is for one thread or task at a time.
"""

CLIENTS = ("Producer", "AsyncProducer", "Consumer", "AsyncConsumer", "Admin", "AsyncAdmin")
RESULTS = (
    "Record", "TopicPartition", "OffsetAndMetadata", "OffsetAndTimestamp", "RecordMetadata", "Span", "Delivery", "Deliveries", "AsyncDelivery",
    "AsyncDeliveries", "ProducerRecord", "ProducerMetrics", "ConsumerMetrics", "Latency", "NewTopic", "Rebalance",
    "GroupListing", "GroupInfo",
)  # fmt: skip


def signature_of(function: Any, name: str) -> str:
    """One line, or one line for each argument if that is too long."""
    signature = inspect.signature(function)
    kept = [part for part in signature.parameters.values() if part.name != "self"]
    text = _plain(signature.replace(parameters=kept))
    is_async = inspect.iscoroutinefunction(function)
    line = f"{'async ' if is_async else ''}{name}{text}"
    if len(line) <= 110:
        return line
    parts = [part.strip() for part in _split(text[1 : text.rindex(")")])]
    return f"{'async ' if is_async else ''}{name}(\n" + "".join(f"    {part},\n" for part in parts) + text[text.rindex(")") :]


def _plain(signature: inspect.Signature) -> str:
    """Annotations as they stand in the source, which are strings here, without quotes; text defaults keep theirs."""
    parts = []
    was_keyword_only = False
    for part in signature.parameters.values():
        if part.kind is part.KEYWORD_ONLY and not was_keyword_only:
            was_keyword_only = True
            if not any(p.kind is p.VAR_POSITIONAL for p in signature.parameters.values()):
                parts.append("*")
        star = "*" if part.kind is part.VAR_POSITIONAL else ""
        annotation = f": {part.annotation}" if part.annotation is not part.empty else ""
        default = f" = {part.default!r}" if part.default is not part.empty else ""
        parts.append(f"{star}{part.name}{annotation}{default}")
    result = f" -> {signature.return_annotation}" if signature.return_annotation is not signature.empty else ""
    return f"({', '.join(parts)}){result}"


def _split(text: str) -> list[str]:
    """At commas that are not inside brackets."""
    return re.split(r",\s*(?![^\[]*\])(?![^(]*\))", text)


def text_of(documented: Any) -> str:
    text = inspect.getdoc(documented) or ""
    # Arguments stand on lines of their own: "name, name: what". A list shows them so.
    lines = []
    for line in text.splitlines():
        if re.match(r"[a-z_]+(, [a-z_]+)*: ", line):
            names, rest = line.split(": ", 1)
            lines.append(f"- `{names.replace(', ', '`, `')}`: {rest}")
        else:
            if line and not line.startswith(" ") and lines and lines[-1].startswith(("- ", "  ")):
                lines.append("")
            lines.append(f"  {line.strip()}" if line.startswith("    ") else line)
    return "\n".join(lines)


def class_text(name: str) -> str:
    kind = getattr(zafka, name)
    text = [f"### {name}\n"]
    if name in CLIENTS or name == "Broker":
        text.append(f"```python\n{signature_of(kind.__init__, name).removesuffix(' -> None')}\n```\n")
    elif getattr(kind, "_fields", None) or getattr(kind, "__struct_fields__", None):
        fields = getattr(kind, "_fields", None) or kind.__struct_fields__
        kinds = {field: kind.__annotations__[field] for field in fields}
        told = (f"`{field}: {getattr(one, '__forward_arg__', one)}`" for field, one in kinds.items())
        text.append(f"Fields: {', '.join(told)}\n")
    text.append(text_of(kind) + "\n")
    for member, function in sorted(inspect.getmembers(kind)):
        is_ours = str(getattr(function, "__module__", "")).startswith("zafka")
        if member.startswith("_") or member in ("close_at_exit", "end_after_fork"):
            continue
        if isinstance(function, property):
            text.append(f"`{member}` (property): {text_of(function)}\n")
        elif callable(function) and is_ours:
            text.append(f"```python\n{signature_of(function, member)}\n```\n{text_of(function)}\n")
    return "\n".join(text)


def errors_text() -> str:
    rows = []
    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, errors.ZafkaError):
            rows.append(f"- `{name}`: {' '.join((inspect.getdoc(kind) or '').split())}")
    return "\n".join(rows)


def reference() -> str:
    parts = [HEAD, "## Clients\n", *map(class_text, CLIENTS), "## What they take and return\n", *map(class_text, RESULTS)]
    parts += ["## Errors\n", "`zafka.ZafkaError` is the root of all; the others are in `zafka.client.errors`.\n", errors_text(), ""]
    parts += ["## Testing\n", class_text("Broker")]
    return "\n".join(parts).rstrip() + "\n"


def main() -> int:
    text = reference()
    if "--check" in sys.argv[1:]:
        return 0 if TARGET.exists() and TARGET.read_text() == text else 1
    TARGET.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
