# trio-wsb: everything a developer or a newcomer runs. `make` alone lists the targets.
# `make demo` and `make test` need python3 (3.11 or later, with venv) and make; they build .venv themselves.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
TIME   := 30s
CLANG  ?= clang-14
KERNEL := trio_wsb/net/kernel
# tests/workers.py says how; ARGS="-n0" runs all in one process.
SPREAD := -n auto --dist loadscope
PYTEST := $(BIN)/python -m pytest $(SPREAD)

.DEFAULT_GOAL := help
.PHONY: help demo test test-long test-full test-network soak soak-sim fuzz autobahn check format coverage bench bpf install uninstall clean

help: ## show the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "trio-wsb needs Python 3.11 or later; say which with: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

demo: $(STAMP) ## balance demo clients over demo backends, with a live table (ARGS="--clients 600 --duration 30")
	@$(BIN)/trio-wsb demo $(ARGS)

test: $(STAMP) ## run the tests (ARGS="-k relay")
	$(PYTEST) $(ARGS)

test-full: $(STAMP) ## the tests with every optional tool, failing on skips that tests/strictness.py does not allow
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,fuzz,peers,bench]'
	$(PYTEST) -p tests.strictness $(ARGS)

test-network: $(STAMP) ## the tests in a network whose packets arrive as from a network card (root)
	$(BIN)/python -m bench.network $(PYTEST) $(ARGS)

soak: $(STAMP) ## the real daemon under churn, reloads, drains and faults, then look for leaks (MINUTES=20; ARGS="--relay kernel")
	$(BIN)/python -m bench.soak --minutes $(or $(MINUTES),20) $(ARGS)

soak-sim: $(STAMP) ## ten thousand simulated stories (SEEDS=10000; ARGS="--seed 10000 --keep-going")
	$(BIN)/python -m tests.simulation --seeds $(or $(SEEDS),10000) $(ARGS)

fuzz: $(STAMP) ## fuzz all targets with coverage guidance (TIME=30s for each; ARGS="frames gate", ARGS=--keep)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,fuzz]'
	$(BIN)/python -m fuzz --time $(TIME) $(ARGS)

autobahn: $(STAMP) ## the Autobahn test suite, directly and through the daemon (needs Python 2.7; ARGS="--cases 1.* 7.*")
	$(BIN)/python -m tests.conformance.autobahn $(ARGS)

test-long: $(STAMP) ## the tests that wait for the kernel's own timeouts, minutes each
	$(BIN)/python -m pytest -m long $(ARGS)

check: $(STAMP) ## ruff, mypy strict and the layer test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layers.py

format: $(STAMP) ## format and fix what ruff can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

coverage: $(STAMP) ## the tests with branch coverage, daemons' own processes included; fails below 98 % (pure layers) or 90 % (all)
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -q $(SPREAD) $(ARGS)
	$(BIN)/coverage combine -q
	$(BIN)/coverage report --skip-covered
	@$(BIN)/coverage json -q -o - | $(BIN)/python -m tests.coverage_floor

bench: $(STAMP) ## measure beside other proxies (ARGS="--full"; needs a C compiler; proxies that are missing are named)
	$(BIN)/python -m bench $(ARGS)

bpf: $(KERNEL)/relay.bpf.o ## build the kernel relay's program (clang-14 and libbpf-dev of Debian 12; the result is shipped)

$(KERNEL)/relay.bpf.o: $(KERNEL)/relay.bpf.c
	$(CLANG) -O2 -g0 -Wall -Werror -mcpu=v3 -target bpf -I/usr/include/$(shell uname -m)-linux-gnu -c $< -o $@

install: ## install as a service below /opt and /etc (as root; DESTDIR=... for another root)
	@systemd/install.sh install $(PYTHON)

uninstall: ## remove what install put there; a changed configuration stays
	@systemd/install.sh uninstall

clean: ## remove the environment and everything built
	rm -rf $(VENV) build dist bench/build .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage* htmlcov .fuzz .autobahn
