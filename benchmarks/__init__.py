"""`make bench`: zafka beside Apache Kafka 4.3.1, on one machine, in one run, by the same clients.

    python -m benchmarks --list                     the suites, and how long each takes
    python -m benchmarks --only latency --rounds 5  one of them; its figures replace those of its last run

Alternating rounds on fresh topics after warming both; only one server is loaded at a time, and the disk is synced
between measurements. figures.py says what becomes of the numbers, suites.py what is measured.
"""
