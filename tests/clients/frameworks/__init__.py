"""Small programs of frameworks that speak Kafka, each as its documentation has it, run against a broker of ours.

    make frameworks        or: python -m tests.clients.frameworks [NAME ...]

run.py      the list, the broker, and docs/frameworks.md, written from what ran
*_app.py    the programs; they know a BOOTSTRAP and tell, as JSON, what they found

The frameworks have an environment of their own (scripts/install-frameworks): they are no part of `make test`.
"""
