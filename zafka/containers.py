"""`KafkaContainer`: what tests know from testcontainers, without a container.

    from zafka.containers import KafkaContainer             # was: from testcontainers.kafka import KafkaContainer

    with KafkaContainer() as kafka:
        producer = Producer({"bootstrap.servers": kafka.get_bootstrap_server()})

Owns: the names of that class's methods, and how the images' environment variables become settings. What belongs to
containers alone (images, volumes, networks) has no meaning here and is refused by name.
"""

from __future__ import annotations

from typing import Any, Self

from zafka.testing import Broker

START_S = 30.0
PREFIX = "KAFKA_"


class KafkaContainer(Broker):
    """A zafka.Broker under the names of testcontainers' class.

    image: taken, and of no importance. port: the port inside of a container, likewise: it is `get_bootstrap_server` that says
        where the broker is. Everything else is `zafka.Broker`'s.
    """

    def __init__(self, image: str = "", port: int = 9093, **options: Any) -> None:
        self.image = image
        self.port = port
        super().__init__(**options)

    def with_kraft(self) -> Self:
        """There is no ZooKeeper to do without."""
        return self

    def with_env(self, key: str, value: str) -> Self:
        """A setting as Kafka's images have it: KAFKA_NUM_PARTITIONS is num.partitions. Raises ValueError for another name.

        The broker refuses at its start what it does not know.
        """
        if not key.startswith(PREFIX):
            raise ValueError(f"{key} is no setting of Kafka's images: they begin with {PREFIX}, such as KAFKA_NUM_PARTITIONS")
        self._topology["defaults"][key.removeprefix(PREFIX).lower().replace("_", ".")] = value
        return self

    def get_bootstrap_server(self) -> str:
        """host:port for any Kafka client."""
        return self.bootstrap_servers

    def get_container_host_ip(self) -> str:
        """The host of `get_bootstrap_server`."""
        return self.bootstrap_servers.rpartition(":")[0]

    def get_exposed_port(self, port: int) -> int:
        """The port of `get_bootstrap_server`, whichever port of a container is asked for."""
        return int(self.bootstrap_servers.rpartition(":")[2])

    def start(self, timeout: float = START_S) -> Self:
        """Start, and return once clients can connect; at most `timeout` seconds."""
        self.start_timeout_s = timeout
        return super().start()
