"""`python -m zafka`: the command line."""

from __future__ import annotations

import sys


def main() -> int:
    if sys.argv[1:2] == ["up"]:
        from zafka.runtime.fork_client import launch_early

        launch_early()  # the processes of the cluster import for themselves, while the command line does
    from zafka.runtime.cli import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
