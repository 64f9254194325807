"""Topics that come and go while everything else goes on.

Owns: `Topics`, a client that knows a broker by its address alone, as those of `loads.py`.
"""

from __future__ import annotations

import random
from itertools import islice
from typing import Any

import zafka
from tests.faults.loads import DELIVERY_S, NETWORK_S, READ_S, Client, Shared


class Topics(Client):
    """Creates and deletes topics until `finish`, again and again under the same names; one record into each.

    there: name -> the record that it must hold at the end, no other. gone: names that must not be there at the end.
    """

    def __init__(self, bootstrap: str, shared: Shared, seed: int, *, network_s: float = NETWORK_S) -> None:
        super().__init__(shared, "creating and deleting topics")
        self.network_s = network_s
        self.bootstrap = bootstrap
        self.created = 0
        self.there: dict[str, bytes] = {}
        self.gone = {f"passing-{number}" for number in range(6)}
        self._random = random.Random(seed)

    def work(self) -> None:
        patience: dict[str, Any] = {"bootstrap_timeout": READ_S, "request_timeout": self.network_s}
        with zafka.Admin(self.bootstrap, api_timeout=DELIVERY_S, **patience) as admin, zafka.Producer(
            self.bootstrap, delivery_timeout=DELIVERY_S, **patience
        ) as producer:
            while not self.must_end.wait(self._random.uniform(0.0, 0.4)):
                name = self._random.choice(sorted({*self.there, *self.gone}))
                try:
                    if name in self.there:
                        del self.there[name]
                        admin.delete_topics(name)
                        self.gone.add(name)
                    else:
                        self.gone.remove(name)
                        self.created += 1
                        value = b"%d" % self.created
                        admin.create_topic(name, partitions=2)
                        producer.send(name, value, partition=0).result(DELIVERY_S)
                        self.there[name] = value
                except zafka.ZafkaError as error:
                    self.shared.fail(f"topic {name}", str(error))
                    return

    def check(self) -> None:
        """Tell what does not hold, as failures."""
        with zafka.Admin(self.bootstrap, bootstrap_timeout=READ_S) as admin:
            listed = set(admin.list_topics())
        with zafka.Consumer(bootstrap_servers=self.bootstrap, auto_offset_reset="earliest") as consumer:
            for name, value in self.there.items():
                if name not in listed:
                    self.shared.fail(f"topic {name}", "was created and is not there")
                    continue
                consumer.assign([(name, 0)])
                [count] = consumer.end_offsets([(name, 0)]).values()
                values = [record.value for record in islice(consumer.records(timeout=READ_S), count)]
                if values != [value]:
                    self.shared.fail(f"topic {name}", f"holds {values}, not {value!r}")
        for name in sorted(listed & self.gone):
            self.shared.fail(f"topic {name}", "was deleted and is there")
