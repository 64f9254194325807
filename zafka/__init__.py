"""The Kafka you can pip install: a partitioned, durable commit log of supervised actor processes."""
