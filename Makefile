# Targets for a fresh clone. They need python3 (3.11 or newer), git and make.
#
#   make demo        train on real images and print the recorded run
#   make test        run ruff, mypy and all tests except the long ones
#   make test-long   run the long tests, with many runs or many gigabytes
#   make test-lowest run the tests with the lowest versions that pyproject.toml allows
#   make test-live   run the contract tests, the mission document and a training on a real Deriva server
#   make bench       run the benchmarks, with other trackers for comparison; without them: python -m benchmarks
#   make docs        build the documentation in site/; a broken link is an error
#   make lint        run only ruff and mypy

PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2
LIVE ?= tests/contracts/test_remote_contracts.py tests/remote/test_compatibility.py \
	tests/remote/test_document_on_server.py tests/remote/test_training_on_server.py
RUN := $(VENV)/bin/python
INSTALLED := $(VENV)/installed
TRACKERS := $(VENV)-trackers
LOWEST := $(VENV)-lowest
LOWEST_UI := $(VENV)-lowest-ui
# the extras that users install; their lower bounds and those of the dependencies are what test-lowest tests
EXTRAS := deriva lightning keras curves run export pandas examples pytest s3 postgres
# these need a newer pydantic than the core does, so their lower bounds are tested in an environment of their own
UI_EXTRAS := ui mcp

export KERAS_BACKEND := torch

.PHONY: demo test test-long test-lowest test-live bench docs lint install
.DEFAULT_GOAL := test

demo: install
	$(RUN) examples/digits_lightning.py

test: lint
	$(RUN) -m pytest -n $(JOBS) --dist worksteal

test-long: install
	$(RUN) -m pytest -m long

# ruff, mypy and mkdocs are not installed there, so this neither lints nor builds the documentation.
test-lowest: $(LOWEST)/installed $(LOWEST_UI)/installed
	$(LOWEST)/bin/python -m pytest -n $(JOBS) --dist worksteal
	$(LOWEST_UI)/bin/python -m pytest tests/ui tests/agents

# DERIVA_ML_TEST_HOST is the server. DERIVA_ML_TEST_CATALOG is a catalog on it to which the tests may add rows; without it,
# the tests create catalogs and delete them. DERIVA_ML_TEST_CREDENTIAL is JSON such as {"cookie": "webauthn=..."}; without
# it, the stored login is used. See CONTRIBUTING.md.
test-live: install
	@test -n "$(DERIVA_ML_TEST_HOST)" || { echo "Set DERIVA_ML_TEST_HOST to the host name of a server."; exit 1; }
	DERIVA_ML_TEST_HOST=$(DERIVA_ML_TEST_HOST) $(RUN) -m pytest $(LIVE)

bench: install $(TRACKERS)/installed
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
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is required. Select one with make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install -c constraints.txt -e '.[dev]'
	touch $@

# Only the dependencies and the named extras are installed with their lowest versions. Tools that only development uses,
# and packages that pyproject.toml does not name, have the newest version that works with these. torch has the version in
# constraints.txt. lightning has the version of pytorch-lightning, whose modules it contains under another name.
define install_lowest
$(PYTHON) -m venv $(1)
$(1)/bin/pip install uv
$(1)/bin/uv pip compile --python $(1)/bin/python --resolution lowest-direct --no-deps --no-header --no-annotate \
	--no-emit-package torch $(2:%=--extra %) -o $(1)/direct.txt pyproject.toml
sed -n 'p; s/^pytorch-lightning==/lightning==/p' $(1)/direct.txt > $(1)/lowest.txt
$(1)/bin/uv pip install --python $(1)/bin/python -c constraints.txt -c $(1)/lowest.txt -e '.[$(3)]'
touch $(1)/installed
endef

$(LOWEST)/installed: pyproject.toml constraints.txt
	$(call install_lowest,$(LOWEST),$(EXTRAS),test)

$(LOWEST_UI)/installed: pyproject.toml constraints.txt
	$(call install_lowest,$(LOWEST_UI),$(UI_EXTRAS) pytest,test-ui)

# A separate environment for other trackers and this package. This package is installed in a second step: aim 3.29
# requires filelock below 4 although it works with 4, so no single resolution satisfies both.
$(TRACKERS)/installed: benchmarks/scripts/trackers.txt pyproject.toml constraints.txt
	$(PYTHON) -m venv $(TRACKERS)
	$(TRACKERS)/bin/pip install -c constraints.txt -r benchmarks/scripts/trackers.txt
	$(TRACKERS)/bin/pip install -c constraints.txt -e '.[lightning]'
	touch $@
