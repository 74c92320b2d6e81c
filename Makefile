# Every target does its own set-up: a fresh Debian or Ubuntu with Python 3.11 or newer and make is
# enough. Everything made here lies in .venv/ and build/, and `make clean` takes it away.
#
#   make demo     a file through a router and four services, all on this machine, no root needed
#   make test     all tests; what this machine lacks is skipped with the reason (fails with CI=true)
#   make check    formatting, lint, types and unit tests: run it before each commit
#   make bench    the benchmarks against their peers, JSON and plots in build/bench/ (best as root)
#   make clean
#
# PYTHON=... chooses the interpreter, ARGS=... is handed on to demo, test and bench.

PYTHON ?= python3
BIN := .venv/bin
ROOMS := chunk host services router domain_controller cloudlet testbed cli
BENCHES := hop path service chunks loss fairness rules
# Three for two cores: one waits for containers most of the time.
WORKERS ?= 3

.PHONY: demo test check lint types unit bench clean venv

demo: venv
	$(BIN)/packetcloud demo $(ARGS)

# The tests start some thousand processes, each of which would compile us again where an environment
# forbids it to keep what it compiled.
test: venv
	$(BIN)/python -m compileall -q $(ROOMS)
	$(BIN)/python -m pytest tests -m "not alone" -n $(WORKERS) --dist loadgroup $(ARGS)
	$(BIN)/python -m pytest tests/system -m alone -p no:xdist $(ARGS)

check: lint types unit

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# The repository is the package `packetcloud` by setuptools' package-dir; mypy sees it by a symlink.
types: venv
	mkdir -p build/import
	ln -sfn ../.. build/import/packetcloud
	MYPYPATH=build/import $(BIN)/mypy $(ROOMS:%=-p packetcloud.%)

unit: venv
	$(BIN)/python -m pytest tests/unit -n $(WORKERS) --dist loadgroup $(ARGS)

bench: venv
	.ci/packages
	mkdir -p build/bench
	set -e; for bench in $(BENCHES); do \
	    $(BIN)/packetcloud bench $$bench --json build/bench/$$bench.json \
	        --plot build/bench/$$bench.png $(ARGS); \
	done

venv:
	@PYTHON=$(PYTHON) .ci/venv

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
