"""The deterministic simulator: a whole machine of zafka in one thread, from a seed.

What runs is production code: every actor with its `ActorRuntime` and `Mailbox`, recovery, the broker with its
gateway, the tree of supervisors; each process in greenlets, so that a flush suspends it. What is simulated is what
they stand on:

    engine.py       virtual time, random streams, trace and hash      network.py      sockets between actors
    disk.py         the disk as a process has it, call by call        connections.py  TCP between clients and brokers
    processes.py    a process: takes time, is stopped, is killed      machine.py      root, fork server, power
    clients.py, producers.py, consumers.py, admins.py                 clients, as state machines, in Kafka's bytes
    committers.py, members.py, rolling.py, cooperative.py             those of groups
    arena.py        shared memory that is garbage once it is freed
    faults.py       the kinds of faults, and a plan of them           checks.py       what must hold at every step
    scenario.py     what a seed means                                 simulation.py   one run, and its verdict

Use: `make sim SEEDS=2000`; `make sim SEED=17 TRACE=1` tells the story of one seed; `SHRINK=1` tells a shorter one that
fails in the same way. `python -m tests.simulation --help` says the rest.

**A run**: the plan of faults happens to a cluster with a few clients for some seconds; then everything heals. In
liveness mode all clients must come to their end within a minute of virtual time; in safety mode they are cut off. In
both every partition is read from its start to its end, and `tests/history.py` says whether what clients saw holds.

**To plug in**
- an actor: an entry in `processes.PROGRAMS`, the same registry that the production tree starts actors by; a
  `Process` of its own only if its shell is;
- a client: a `Client` with `start`, `finish` and `done`, made in `Simulation._make_clients` from what `Scenario` says;
- a fault: an entry in `faults.KINDS`;
- a check at every step: a method of `Checks`; over what clients saw: `tests/history.py`.

**Deterministic**: no real clock, no system randomness (`Machine.new_id` stands for uuids), no order of a set; the
same seed gives the same hash in any process, whatever PYTHONHASHSEED is.

**What it does not see**: threads of the broker's shell (cold reads and removals are tasks of their own here, but only
flushes take time), ZeroMQ's own buffers and limits, the ZeroMQ door, the root's own start (data directory, listeners).
"""
