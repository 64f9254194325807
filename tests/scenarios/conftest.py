"""What holds for all scenarios."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.disks import ClosingDisk


@pytest.fixture(autouse=True)
def nothing_stays_open() -> Iterator[None]:
    yield
    ClosingDisk.close_all()
