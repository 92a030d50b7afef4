# make demo   environment, install, the main job on data/france.txt
# make test   everything CI runs
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
# exactly this spelling gets the small CPU build; for a GPU install your build of torch first
TORCH := torch==2.13.0
DEMO := runs/demo

.PHONY: demo test test-all test-oldest lint audit dist locked lock fuzz bench bench-quality bench-big install clean

demo: $(VENV)/installed
	@$(BIN)/lmcli demo data/france.txt --output $(DEMO) --force
	@echo
	@echo "Now on a text of your own:"
	@echo "    $(BIN)/lmcli demo my.txt"
	@echo "    $(BIN)/lmcli train my.txt -o runs/mine"
	@echo "    $(BIN)/lmcli sample runs/mine"

test: $(VENV)/tools
	$(MAKE) lint
	$(BIN)/python -m pytest -n auto -m "not slow" -q

test-all: $(VENV)/tools
	$(MAKE) lint
	-$(PIP) install kenlm
	$(BIN)/python -m pytest -n auto -q

# with the lowest versions that pyproject.toml allows, in an environment of its own
test-oldest: $(VENV)/bin/python
	$(PIP) install uv
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(VENV)/oldest
	$(BIN)/uv pip install --quiet --python $(VENV)/oldest/bin/python --resolution lowest-direct \
	    --editable ".[dev]"
	$(VENV)/oldest/bin/python -m pytest -n auto -m "not slow" -W "ignore::DeprecationWarning" -q

lint: $(VENV)/tools
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

audit: $(VENV)/tools
	$(BIN)/ruff check --select S lmcli
	$(PIP) install --editable ".[release]"
	$(BIN)/pip-audit --skip-editable

dist: $(VENV)/tools
	$(PIP) install --editable ".[release]"
	rm -rf dist
	$(BIN)/python -m build --outdir dist
	$(BIN)/twine check --strict dist/*

# the environment of CI: every package but torch as requirements.lock has it, hashes compared
locked: $(VENV)/bin/python
	$(PIP) install --no-deps "$(TORCH)"
	$(PIP) install --no-deps --require-hashes --requirement requirements.lock
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $(VENV)/installed $(VENV)/tools

# new versions in requirements.lock; torch, whose build differs, and what only a GPU's needs stay out
lock: $(VENV)/bin/python
	$(PIP) install uv
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 \
	    --generate-hashes --no-emit-package torch --excludes .ci/not-locked.txt --no-annotate \
	    --custom-compile-command "make lock" --upgrade --quiet --output-file requirements.lock

fuzz: $(VENV)/tools
	$(BIN)/python -m pytest -n auto --hypothesis-profile nightly -q tests/fuzz

bench: $(VENV)/tools
	$(BIN)/python tests/benchmarks/bench.py
	$(BIN)/python tests/benchmarks/page.py

# nats per character beside compressors and a plain network: make bench-quality TEXTS="a.txt b.txt"
TEXTS ?= data/france.txt
bench-quality: $(VENV)/tools
	$(BIN)/python tests/benchmarks/quality.py $(TEXTS)

bench-big: $(VENV)/tools
	$(BIN)/python tests/benchmarks/big_text.py

install: $(VENV)/installed
	@echo "lmcli is installed. Call it by its place, from any folder:"
	@echo "    $(abspath $(BIN))/lmcli --help"
	@echo "or put it on the path of this shell first:"
	@echo "    . $(BIN)/activate"
	@echo "    lmcli --help"

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(VENV)/bin/python pyproject.toml
	$(PIP) install "$(TORCH)"
	$(PIP) install --editable .
	@touch $@

$(VENV)/tools: $(VENV)/installed
	$(PIP) install --editable ".[dev]"
	@touch $@

clean:
	rm -rf $(VENV) dist build runs scratch .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
