from __future__ import annotations
import sys, time, logging
import structlog
structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
from tests.simulation.simulation import run_seed
from collections import Counter
a, _, b = sys.argv[1].partition("-")
total = Counter(); bad = []
t0 = time.process_time()
for seed in range(int(a), int(b or a) + 1):
    t=time.process_time()
    r = run_seed(seed, print if len(sys.argv) > 2 else None)
    t=time.process_time()-t
    total += r.counts
    if t > 0.5: print("slow", seed, round(t,2), round(r.virtual_s))
    if r.violations:
        bad.append(seed)
        print(seed, r.violations[0].check, r.violations[0].what[:150], "...", r.violations[0].what[-400:])
n = int(b or a)-int(a)+1
print("cpu/seed ms", round((time.process_time()-t0)/n*1000), dict(total), bad, r.trace_hash)
