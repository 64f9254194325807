"""The version of zafka, as brokers are told. The same as in pyproject.toml, which a test checks."""

VERSION = "0.1.0"
