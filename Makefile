# make demo   a small transfer study on the tasks in the package, with a page
# make test   formatter check, linter, all tests
# make bench  speed and memory, see benchmarks/README.md
# make lint | format | clean
#
# Each builds what it needs in .venv once and reuses it afterwards; it installs
# again only when setup.py or constraints.txt changes. Another Python:
#   make demo PYTHON=/path/to/python3.12

SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO := gin/demo.gin

# The first of these that runs and is a version the constraints were tested on.
PYTHON ?= $(shell for python in python3 python3.12 python3.11; do \
  $$python -c 'import sys; sys.exit(sys.version_info[:2] not in \
  ((3, 11), (3, 12)))' >/dev/null 2>&1 && { echo $$python; break; }; done)

.PHONY: demo test lint format clean bench
.DEFAULT_GOAL := demo

demo: $(STAMP)
	@echo '== A transfer study on the embedded tasks: $(DEMO)'
	$(BIN)/python -m prompt_subspace.run --gin_file=$(DEMO)

test: lint
	@echo '== Tests, on the CPU, a process for each core'
	JAX_PLATFORMS=cpu $(BIN)/python -m pytest --numprocesses=logical \
	  --maxprocesses=8 --dist=loadfile

bench: $(STAMP)
	@echo '== Speed and memory, on a machine that does nothing else'
	$(BIN)/python -m benchmarks.run

lint: $(STAMP)
	@echo '== Formatter check and linter'
	$(BIN)/ruff format --check
	$(BIN)/ruff check

format: $(STAMP)
	@echo '== Formatting, and the fixes that the linter can make'
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

clean:
	@echo '== Removing the environment and the caches (runs/ stays)'
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache

# An environment without a working pip is one that was interrupted while it
# was made, or whose Python is gone: it is made anew.
$(STAMP): setup.py constraints.txt
	@test -n '$(PYTHON)' || { echo 'No Python 3.11 or 3.12 found. Install' \
	  'one, or name it: make $(or $(MAKECMDGOALS),demo)' \
	  'PYTHON=/path/to/python3.11' >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { \
	  echo '== Creating $(VENV) with $(PYTHON)'; \
	  $(PYTHON) -m venv --clear $(VENV); }
	@echo '== Installing the package and its tested dependencies into' \
	  '$(VENV) (once; about 3 GB)'
	$(BIN)/python -m pip install --quiet --editable '.[dev]' \
	  --constraint constraints.txt
	@touch $@
