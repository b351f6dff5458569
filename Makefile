# Everything that a fresh clone needs: python3 (3.11 or newer), git, make.
#
#   make demo       train on real images and read the run back
#   make test       lint, types, and all tests but the long ones
#   make test-long  campaigns of many runs or many gigabytes
#   make bench      the table of benchmarks
#   make lint       ruff and mypy alone

PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2
RUN := $(VENV)/bin/python
INSTALLED := $(VENV)/installed

export KERAS_BACKEND := torch

.PHONY: demo test test-long bench lint install
.DEFAULT_GOAL := test

demo: install
	$(RUN) examples/digits_lightning.py

test: lint
	$(RUN) -m pytest -n $(JOBS) --dist worksteal

test-long: install
	$(RUN) -m pytest -m long

bench: install
	$(RUN) -m benchmarks

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
