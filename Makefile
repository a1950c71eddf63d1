# Every target does its own set-up: `make demo` and `make test` work in a fresh clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
APT_PACKAGES := gcc-avr avr-libc binutils-avr libsimavr-dev libelf-dev libgl1 libglib2.0-0

.PHONY: demo test bench lint fix hardware clean help

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[dev]"
	@touch $@

# The emulated board needs a compiler for the chip and the chip's emulator. Where they can neither
# be found nor installed the build is left out, and the tests that need it say which is missing.
hardware: ## build the firmware and its emulator, installing what they need where that is allowed
	@sh hardware/setup.sh $(APT_PACKAGES)

demo: $(STAMP) hardware ## one minute of closed loop, without any hardware
	$(BIN)/rtpose demo --seconds 60

test: $(STAMP) hardware ## every test
	$(BIN)/python -m pytest

bench: $(STAMP) hardware ## every benchmark, with its figures
	$(BIN)/python -m benchmarks

lint: $(STAMP) ## style, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: $(STAMP) ## format, and repair what can be repaired
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove what was built here
	rm -rf build dist hardware/firmware/build hardware/emulator/build
