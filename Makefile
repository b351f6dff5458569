# Everything that a fresh clone needs: python3 (3.11 or newer), git, make.
#
#   make demo       train on real images and read the run back
#   make test       lint, types, and all tests but the long ones
#   make test-long  campaigns of many runs or many gigabytes
#   make test-live  the contracts, the document and the training's story on a real Deriva server
#   make bench      the tables of benchmarks, the peers' trackers beside ours; ours alone: python -m benchmarks
#   make docs       the documentation's pages, in site/; a broken link is an error
#   make lint       ruff and mypy alone

PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2
LIVE ?= tests/contracts/test_remote_contracts.py tests/remote/test_other_catalogs.py \
	tests/remote/test_remote_document.py tests/remote/test_remote_story.py
RUN := $(VENV)/bin/python
INSTALLED := $(VENV)/installed
PEERS := $(VENV)-peers

export KERAS_BACKEND := torch

.PHONY: demo test test-long test-live bench docs lint install
.DEFAULT_GOAL := test

demo: install
	$(RUN) examples/digits_lightning.py

test: lint
	$(RUN) -m pytest -n $(JOBS) --dist worksteal

test-long: install
	$(RUN) -m pytest -m long

# DERIVA_ML_TEST_HOST names the server; DERIVA_ML_TEST_CATALOG a catalog of it that may be filled with rows, else some are
# made and deleted; DERIVA_ML_TEST_CREDENTIAL is JSON such as {"cookie": "webauthn=..."}, else the stored login is taken;
# CONTRIBUTING.md says more
test-live: install
	@test -n "$(DERIVA_ML_TEST_HOST)" || { echo "name a server with DERIVA_ML_TEST_HOST=..."; exit 1; }
	DERIVA_ML_TEST_HOST=$(DERIVA_ML_TEST_HOST) $(RUN) -m pytest $(LIVE)

bench: install $(PEERS)/installed
	$(RUN) -m benchmarks

docs: install
	$(RUN) -m mkdocs build --strict

lint: install
	$(RUN) -m ruff check
	$(RUN) -m ruff format --check
	$(RUN) -m mypy
	$(RUN) -m mypy plugins/*/deriva_ml_*.py

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one with make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install -c constraints.txt -e '.[dev]'
	touch $@

# an environment of its own, where benchmarks of trainings measure ours too; ours comes second, for aim 3.29 asks for
# filelock below 4, though it works with 4, and a resolver that sees both finds nothing
$(PEERS)/installed: benchmarks/contest/peers.txt pyproject.toml constraints.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/pip install -c constraints.txt -r benchmarks/contest/peers.txt
	$(PEERS)/bin/pip install -c constraints.txt -e '.[lightning]'
	touch $@
