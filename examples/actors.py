"""Actors of your own: each in its own process, restarted when it dies; what must survive is kept in a topic.

python examples/actors.py            # brings its own broker
"""

import os
import signal

import zafka
from zafka.actor import Actor, ActorFailed, Context, Ref, System


class Till(Actor):
    """Counts money, and keeps every booking in a topic before it says so."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self.total = 0

    def on_start(self, context: Context) -> None:
        """After every start: all that was booked before, from the topic."""
        self.producer = zafka.Producer(self.bootstrap)
        with zafka.Consumer("bookings", bootstrap_servers=self.bootstrap, auto_offset_reset="earliest") as consumer:
            (end,) = consumer.end_offsets([("bookings", 0)]).values()
            while consumer.position(("bookings", 0)) < end:
                self.total += sum(int(record.value or b"0") for record in consumer.poll(1.0))

    def on_message(self, amount: int, context: Context) -> int:
        if amount == 13:
            os.kill(os.getpid(), signal.SIGKILL)  # whatever happens to processes
        self.producer.send("bookings", b"%d" % amount).result()
        self.total += amount
        return self.total


class Shop(Actor):
    """Asks another actor, and answers."""

    def __init__(self, till: Ref) -> None:
        self.till = till

    def on_message(self, prices: list[int], context: Context) -> str:
        for price in prices:
            self.till.tell(price)
        return f"thank you; there are {self.till.ask(0)} in the till"


if __name__ == "__main__":
    with zafka.Broker(topics={"bookings": 1}) as broker, System() as system:
        till = system.spawn(Till, broker.zmq_bootstrap_servers, name="till")
        shop = system.spawn(Shop, till, name="shop")
        print(shop.ask([3, 4, 5], timeout=10))
        try:
            till.ask(13, timeout=10)
        except ActorFailed as failed:
            print(failed)
        print(shop.ask([30], timeout=10))
        assert till.ask(0, timeout=10) == 42
