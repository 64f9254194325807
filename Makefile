# zafka: every target makes what it needs in .venv, from nothing but python3, make and git.
# Real Kafka clients and Apache Kafka itself, for the tests and benchmarks that want them: scripts/install-peers

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
CHECKED := actors runtime storage transport zafka tests benchmarks scripts
MINUTES ?= 1
CUTS ?= 20
TARGET ?= zafka
SEEDS ?= 2000
# What brings a log back, and what leads it: docs/testing.md names the lines that no test reaches.
RECOVERY := storage/recovery.py,storage/log.py,storage/checkpoint.py,storage/segment.py,storage/index.py,storage/scan.py,storage/roll.py,storage/torn_tail.py,storage/directory.py,storage/fault.py,storage/verify.py,storage/index_check.py,storage/repair.py,storage/location.py,actors/partition.py,actors/partition_reads.py,actors/deletion.py,actors/produce_rules.py,actors/replica.py,actors/offline.py
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help demo test check lint types layers coverage bench powercut soak groups held sim planted fuzz clients frameworks clean

help:  ## show the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1|\2/' | column -t -s '|'

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "zafka needs Python 3.11 or later, and $(PYTHON) is " + sys.version.split()[0] + "; say which: make PYTHON=python3.12 ...")'
	@echo "Setting up $(VENV) (the first time only) ..."
	@$(PYTHON) -m venv $(VENV) || { echo "python3 cannot make environments: on Debian and Ubuntu, apt-get install python3-venv"; exit 1; }
	@$(BIN)/python -m pip install --quiet --editable '.[test]'
	@$(BIN)/python -m compileall -q actors runtime storage transport zafka  # where Python is told to write none, a start would compile all
	@touch $@

demo: $(READY)  ## stream text through a cluster while its processes are killed, and prove what came out [FILE=text file]
	@$(BIN)/zafka demo $(if $(FILE),"$(FILE)")

test: $(READY)  ## run all tests
	@scripts/run-tests $(BIN)/python

check: lint types layers test  ## everything that CI checks

lint: $(READY)
	$(BIN)/ruff check $(CHECKED)

types: $(READY)
	$(BIN)/mypy

layers: $(READY)
	$(BIN)/python -m pytest -q tests/test_layers.py

coverage: $(READY)  ## lines and branches of recovery and partitions that the unit tests reach; less than 95 % fails
	$(BIN)/coverage run --branch -m pytest -q tests/unit
	$(BIN)/coverage report --include="$(RECOVERY)" --show-missing --fail-under=95

bench: $(READY)  ## measure zafka beside Apache Kafka, where scripts/install-peers was run [ARGS="--list"]
	$(BIN)/python -m benchmarks $(ARGS)

powercut: $(READY)  ## cut the power CUTS=20 times on a disk that forgets, then check that nothing is lost [SEED=n TARGET=kafka]
	$(BIN)/python -m tests.powercut.power_cuts --cuts $(CUTS) --target $(TARGET) $(if $(SEED),--seed $(SEED)) $(ARGS)

soak: $(READY)  ## every fault there is, at random, for MINUTES=1, then check that nothing is lost [SEED=n]
	$(BIN)/python -m tests.faults.soak --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

groups: $(READY)  ## members of groups come, go and crash under load for MINUTES=1, whoever is killed [SEED=n ARGS="--kinds Java"]
	$(BIN)/python -m tests.faults.groups.campaign --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) $(ARGS)

held: $(READY)  ## members stand still at each step of a rebalance, and come back [ARGS="--kinds Java --hold 36"]
	$(BIN)/python -m tests.faults.groups.held $(ARGS)

sim: $(READY)  ## simulate SEEDS=2000 seeds of faults in virtual time, or tell about one: SEED=n TRACE=1 [SHRINK=1]; DIRECT=1: past the broker
	@$(BIN)/python -m tests.simulation $(or $(SEED),1-$(SEEDS)) $(if $(TRACE),--trace) $(if $(SHRINK),--shrink) $(if $(DIRECT),--direct)

planted: $(READY)  ## plant every known bug in a copy and have the checks find it; RECORD=1 keeps the seeds [ARGS=bugs]
	@$(BIN)/python -m tests.planted.plant $(if $(RECORD),--record) $(ARGS)

clients: $(READY)  ## write docs/clients.md anew: every case with every client, which all have to be there (scripts/install-peers)
	ZAFKA_CLIENTS_REPORT=.clients.json CI=true $(BIN)/python -m pytest -q tests/clients/test_matrix.py -k test_client
	$(BIN)/python -m tests.clients.matrix.report .clients.json && rm .clients.json

frameworks: $(READY)  ## write docs/frameworks.md anew: programs of Faust, FastStream, Celery ... in an environment of their own [ARGS="Bytewax"]
	scripts/install-frameworks
	$(BIN)/python -m tests.clients.frameworks $(ARGS)

fuzz: $(READY)  ## strangers' bytes at every decoder for MINUTES=1; a table of what was run and found [ARGS=decoders]
	$(BIN)/python -m tests.fuzz.campaign --minutes $(MINUTES) $(ARGS)

clean:  ## remove the environment and all caches
	rm -rf $(VENV) build .coverage .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
