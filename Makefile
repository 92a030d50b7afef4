# make demo   environment, install, the main job on data/france.txt
# make test   everything CI runs
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# exactly this spelling gets the small CPU build; for a GPU install your build of torch first
TORCH := torch==2.13.0
DEMO := runs/demo

.PHONY: demo test test-all lint audit fuzz bench bench-big install clean

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
	-$(BIN)/python -m pip install --quiet kenlm
	$(BIN)/python -m pytest -n auto -q

lint: $(VENV)/tools
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

audit: $(VENV)/tools
	$(BIN)/ruff check --select S lmcli
	$(BIN)/python -m pip install --quiet pip-audit
	$(BIN)/pip-audit --skip-editable

fuzz: $(VENV)/tools
	$(BIN)/python -m pytest -n auto --hypothesis-profile nightly -q tests/fuzz

bench: $(VENV)/tools
	$(BIN)/python tests/benchmarks/bench.py
	$(BIN)/python tests/benchmarks/page.py

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
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$(TORCH)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/tools: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	@touch $@

clean:
	rm -rf $(VENV) runs scratch .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
