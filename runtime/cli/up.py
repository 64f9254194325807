"""`zafka up`: run a topology in the foreground until SIGTERM or SIGINT."""

from __future__ import annotations

import sys
from pathlib import Path

import click


@click.command()
@click.argument("topology", required=False, type=click.Path(path_type=Path))
@click.option("--data-dir", envvar="ZAFKA_DATA_DIR", metavar="FOLDER", help="Above the file's data_dir (or ZAFKA_DATA_DIR).")
@click.option("--kafka-port", type=click.IntRange(0, 65535), envvar="ZAFKA_KAFKA_PORT", metavar="PORT",
              help="Of the one broker's Kafka listener; 0 picks a free one (or ZAFKA_KAFKA_PORT).")
@click.option("--zmq-port", type=click.IntRange(0, 65535), envvar="ZAFKA_ZMQ_PORT", metavar="PORT",
              help="Of the one broker's ZeroMQ listener; 0 picks a free one (or ZAFKA_ZMQ_PORT).")
@click.option("--ready-file", type=click.Path(path_type=Path), metavar="FILE",
              help="Written once everything accepts clients: addresses and process id, as JSON.")
@click.option("--allow-faults", is_flag=True, help="Let `zafka chaos` inject faults; for tests, never for real data.")
@click.option("--fault-plan", type=click.Path(path_type=Path), metavar="FILE",
              help="Follow this plan of faults once everything accepts clients; allows faults, too.")
@click.option("--broker", type=int, metavar="N", help="Not supported yet: run one broker of several machines.")
@click.option("--stop-with-stdin", is_flag=True, hidden=True, help="Stop when standard input ends.")
def up(
    topology: Path | None, data_dir: str | None, kafka_port: int | None, zmq_port: int | None,
    ready_file: Path | None, allow_faults: bool, fault_plan: Path | None, broker: int | None, stop_with_stdin: bool,
) -> int:
    """Run a cluster: the one in the file TOPOLOGY, or one broker on 127.0.0.1 (Kafka 9092, ZeroMQ 9290)."""
    if sys.platform != "linux":
        raise click.ClickException(
            f"brokers run on Linux only, and this is {sys.platform}; the client library works here")
    if broker is not None:
        raise click.UsageError("--broker is not supported yet: all brokers of a topology run on one machine")
    from zafka.runtime.fork_client import launch_early

    launch_early(faults=allow_faults)  # it imports what actors need while we import what we need
    from zafka.runtime.root import run
    from zafka.runtime.topology import Changes, load_topology

    plan = None
    if fault_plan is not None:
        from zafka.runtime.faults.plan import load_plan

        plan = load_plan(fault_plan)
    settings = load_topology(
        topology, Changes(data_dir=data_dir, kafka_port=kafka_port, zmq_port=zmq_port, ready_file=ready_file,
                          stop_with_stdin=stop_with_stdin, allow_faults=allow_faults, fault_plan=plan))
    return run(settings)
