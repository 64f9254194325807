"""The two lists of which the matrix is made, in the order of docs/clients.md."""

from tests.clients.matrix import cases_admin, cases_faults, cases_following, cases_groups, cases_reading, cases_writing
from tests.clients.matrix.drivers import DRIVERS

CASES = tuple(
    each for module in (cases_writing, cases_reading, cases_groups, cases_following, cases_admin, cases_faults) for each in module.case.cases)

__all__ = ["CASES", "DRIVERS"]
