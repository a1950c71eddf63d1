# Every target does its own set-up: `make demo` and `make test` work in a fresh clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --editable
RUNS := $(VENV)/.runs
DEVELOPS := $(VENV)/.develops
APT_PACKAGES := gcc libc6-dev gcc-avr avr-libc binutils-avr libsimavr-dev libelf-dev libgl1 libglib2.0-0 \
	avrdude arduino-core-avr

# Tests start some hundred processes, which need not compile rtpose each time.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test bench faults lint fix hardware clients clean help

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(RUNS): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) ".[serial]"
	@touch $@

$(DEVELOPS): pyproject.toml $(RUNS)
	$(INSTALL) ".[dev]"
	@touch $@

# The emulated board needs a compiler for the chip and the chip's emulator. Where they can neither
# be found nor installed the build is left out, and the tests that need it say which is missing.
hardware: ## build the firmware and its emulator, installing what they need where that is allowed
	@sh hardware/setup.sh $(APT_PACKAGES)

demo: $(RUNS) hardware ## half a minute of closed loop, without any hardware
	$(BIN)/rtpose demo --seconds 30

# The examples are packages of their own, so each is tested as its author would. What starts rigs,
# boards and cameras has the machine to itself; the rest takes every core.
BESIDE_OTHERS := tests/unit tests/contract $(wildcard tests/process/test_train*.py)

test: $(DEVELOPS) hardware clients ## every test
	$(BIN)/python -m pytest examples/custom_trigger
	$(BIN)/python -m pytest examples/custom_output
	$(BIN)/python -m pytest --numprocesses auto $(BESIDE_OTHERS)
	$(BIN)/python -m pytest $(addprefix --ignore=,$(BESIDE_OTHERS))

# Without Node.js the tests of that client skip, saying so.
clients:
	@if command -v npm >/dev/null; then \
	    npm install --silent --no-audit --no-fund --prefix examples/clients/node; \
	else echo "no npm: the client in Node.js is not tested"; fi

bench: $(DEVELOPS) hardware ## every benchmark, with its figures
	$(BIN)/python -m benchmarks

faults: $(DEVELOPS) hardware ## break a running rig in every way, 200 times (half an hour)
	PYTHONPATH=tests/contract $(BIN)/python tests/faults/run.py --runs 200

lint: $(DEVELOPS) ## style, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: $(DEVELOPS) ## format, and repair what can be repaired
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove what was built here
	rm -rf build dist hardware/firmware/build hardware/emulator/build
