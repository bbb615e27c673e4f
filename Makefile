# One set of commands for people and for CI. `make help` lists them.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip install --disable-pip-version-check --quiet --quiet --constraint constraints.txt
export FLWR_TELEMETRY_ENABLED := 0
export FLWR_DISABLE_UPDATE_CHECK := 1

.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

setup: $(VENV)/.runtime  ## create .venv and install what Fedge needs to run

demo: setup  ## train MNIST with a server and four clients as separate processes; ends with the accuracy table
	@$(RUN) scripts/demo.py

test: $(VENV)/.development check  ## run all tests, with branch coverage of at least 90 %
	@$(RUN) -m pytest --numprocesses 2 --dist loadgroup --cov --cov-report term:skip-covered

fuzz: $(VENV)/.development  ## feed the decoders 3,000,000 mutated messages (minutes on a small machine)
	@HOSTILE_MESSAGES=3000000 $(RUN) -m pytest tests/property/test_hostile_bytes.py

faults: $(VENV)/.development  ## run over a thousand seeded schedules of faults (half an hour), and write their table into docs/reliability.md
	@$(RUN) -m tests.faults.everything

soak: $(VENV)/.development  ## 20 nodes and a server under a kill loop, SECONDS=600 of it, against as long without
	@$(RUN) -m tests.faults.soak --seconds $(or $(SECONDS),600)

check: $(VENV)/.development  ## lint, formatting and types
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@$(RUN) -m mypy

format: $(VENV)/.development  ## put the code into its form
	@$(RUN) -m ruff check --fix .
	@$(RUN) -m ruff format .

recipes: setup  ## run all recipes, JOBS=N at once (hours; may be stopped), and write their tables into docs/recipes.md
	@$(RUN) -m benchmarks.recipes --jobs $(or $(JOBS),1)

strategies: setup  ## run all strategies likewise, and write their tables into docs/strategies.md
	@$(RUN) -m benchmarks.strategies --jobs $(or $(JOBS),1)

attacks: setup  ## run all attacks of hostile nodes likewise, and write their tables into docs/attacks.md
	@$(RUN) -m benchmarks.attacks --jobs $(or $(JOBS),1)

bytes: setup  ## train under every codec likewise, and write the tables into docs/bytes.md
	@$(RUN) -m benchmarks.bytes --jobs $(or $(JOBS),1)

bench-long: setup  ## count the rounds to 99 % likewise (days; what is finished is kept), and write docs/mcmahan.md
	@$(RUN) -m benchmarks.mcmahan --jobs $(or $(JOBS),1)

bench: $(VENV)/.development  ## measure training, rounds, nodes and simulation beside their peers, an hour (docs/benchmarks.md)
	@$(RUN) -m benchmarks.local_sgd
	@$(RUN) -m benchmarks.round_overhead --superlink
	@$(RUN) -m benchmarks.footprint --repeats 2
	@$(RUN) -m benchmarks.simulation --peers "$(PEERS)"

proto: $(VENV)/.development  ## generate the link's messages anew from common/fleet.proto
	@$(RUN) -m grpc_tools.protoc -I. --python_out=. --pyi_out=. common/fleet.proto

lock: $(VENV)/.development  ## write the versions installed now to constraints.txt
	@$(RUN) scripts/lock.py > constraints.txt

clean:  ## remove .venv and what tests leave behind; runs/ stays
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage .coverage.* *.egg-info

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Fedge needs Python 3.11 or newer: make PYTHON=python3.12 …")'
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.runtime: $(VENV)/.created pyproject.toml constraints.txt
	@echo "Installing Fedge into $(VENV) (a few minutes the first time) …"
	@$(PIP) torch==2.13.0
	@$(PIP) --editable .
	@touch $@

$(VENV)/.development: $(VENV)/.runtime
	@echo "Installing what tests need into $(VENV) …"
	@$(PIP) --editable '.[dev]'
	@touch $@

.PHONY: help setup demo test fuzz faults soak check format bench bench-long recipes strategies attacks bytes proto lock clean
