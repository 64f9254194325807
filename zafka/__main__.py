"""`python -m zafka`: the command line."""

from __future__ import annotations

import sys


def main() -> int:
    from zafka.runtime.cli import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
