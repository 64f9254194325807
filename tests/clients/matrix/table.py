"""The two lists of which the matrix is made, in the order of docs/clients.md."""

from tests.clients.matrix import cases_faults, cases_groups, cases_reading, cases_writing
from tests.clients.matrix.drivers import DRIVERS

CASES = (*cases_writing.case.cases, *cases_reading.case.cases, *cases_groups.case.cases, *cases_faults.case.cases)

__all__ = ["CASES", "DRIVERS"]
