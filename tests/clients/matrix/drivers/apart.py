"""Clients in Python: they run in the process of the tests, and a member that is to crash in one of its own."""

from __future__ import annotations

import sys

from tests.clients.matrix.driver import AS_USUAL, Driver, Joining, Reader
from tests.clients.matrix.drivers.json_lines import ROOT, JsonMember, Program


class PythonClient(Driver):
    def __init__(self, kafka: str, zmq: str) -> None:
        super().__init__(kafka, zmq)
        self.doors = kafka, zmq

    def member_apart(self, topic: str, group: str, joining: Joining = AS_USUAL) -> Reader:
        kind = f"{type(self).__module__}:{type(self).__name__}"
        program = Program([sys.executable, "-m", "tests.clients.matrix.member_process", kind, *self.doors], {"PYTHONPATH": str(ROOT)})
        return JsonMember(program, {"topic": topic, "group": group}, joining, is_apart=True)
