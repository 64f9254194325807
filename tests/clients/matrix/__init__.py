"""Every client, every use: one list of cases times one driver per client; docs/clients.md is the table of what ran.

driver.py       the words in which a case asks a client for something, and what clients cannot do
drivers/        one client each, in those words; json_lines.py runs those of other languages (foreign/),
                apart.py and member_process.py those in Python that are to crash
cases.py        the list, and the bench that a case works at; cases_writing.py, cases_reading.py, cases_groups.py,
                cases_admin.py, cases_faults.py
recorder.py     the proxy that sees which versions of which requests each client sends
report.py       docs/clients.md, from what a run has told

A new client is a driver, and a line in drivers/__init__.py. A new case is a function with @case. Then `make clients`.
"""
