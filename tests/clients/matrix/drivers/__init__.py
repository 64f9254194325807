"""All drivers, in the order of their columns in docs/clients.md."""

from tests.clients.matrix.driver import Driver
from tests.clients.matrix.drivers.aio import AioKafka
from tests.clients.matrix.drivers.command_lines import JavaConsole, Kcat
from tests.clients.matrix.drivers.confluent import Confluent
from tests.clients.matrix.drivers.json_lines import FranzGo, Java, KafkaJs, Sarama
from tests.clients.matrix.drivers.kafka_python import KafkaPython
from tests.clients.matrix.drivers.ours import Zafka, ZafkaDoor
from tests.clients.matrix.drivers.ours_async import AsyncZafka

DRIVERS: tuple[type[Driver], ...] = (
    Confluent, KafkaPython, AioKafka, Kcat, Java, JavaConsole, FranzGo, Sarama, KafkaJs, Zafka, ZafkaDoor, AsyncZafka)
