# Needs Python 3.11 or later and make. Everything is installed into $(VENV), exact versions.
PYTHON ?= python3
VENV ?= .venv
BASE_VENV ?= $(VENV)-base
BIN := $(VENV)/bin
READY := $(VENV)/.ready
BENCH_DATA ?= ../shared/data
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: help setup demo test lint base pretrained bench soak overload fuzz clean

help:  ## what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

setup: $(READY)  ## the environment, with the command edgernn in $(VENV)/bin
	@echo "ready: source $(BIN)/activate"

demo: $(READY)  ## simulate, train, export, run, alert: a picture in demo-out
	$(BIN)/python examples/demo.py demo-out

test: lint base  ## every check and test
	$(BIN)/pytest -n auto --dist loadfile

lint: $(READY)  ## style, types, who imports whom
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

# The wheel as a Pi gets it: base install only, in an environment of its own.
base: $(READY)  ## the device's tests on the base install, without torch and onnx
	rm -rf build/base $(BASE_VENV)
	$(BIN)/python -m build --quiet --outdir build/base .
	$(BIN)/python tests/make_artefact.py build/base
	$(PYTHON) -m venv $(BASE_VENV)
	$(BASE_VENV)/bin/python $(PIP_INSTALL) build/base/*.whl pytest pytest-timeout hypothesis
	EDGERNN_TEST_ARTEFACT=$(abspath build/base/pump.onnx) $(BASE_VENV)/bin/pytest tests/device

pretrained: $(READY)  ## the artefact that comes with edgernn, made anew, byte for byte
	$(BIN)/python -m edgernn_export.general

bench: $(READY)  ## speed and memory, into benchmarks/RESULTS.md
	$(BIN)/python benchmarks/run.py

BENCHES := bench-nab bench-skab bench-smd bench-gecco
BENCH_BUDGET ?= 1/week
bench-gecco: BENCH_FOLDER := gecco2018
.PHONY: $(BENCHES)
$(BENCHES): bench-%: $(READY)  # a public set each, from $(BENCH_DATA): table, page and scores in build/benchmark
	mkdir -p build/benchmark
	$(BIN)/edgernn benchmark $* $(BENCH_DATA)/$(or $(BENCH_FOLDER),$*) --table build/benchmark/$*.csv \
		--report build/benchmark/$*.html --scores build/benchmark/$* >build/benchmark/$*.md
	cp build/benchmark/$*.md benchmarks/tables/$*.md
	cat build/benchmark/$*.md

bench-smd-tsb: $(READY)  ## SMD by TSB-AD's protocol, with its own figure for 2-1 and 2-8 in build/benchmark/smd-tsb.csv
	mkdir -p build/benchmark
	$(BIN)/edgernn benchmark smd $(BENCH_DATA)/smd --protocol tsb-ad --table build/benchmark/smd-tsb.csv \
		>build/benchmark/smd-tsb.md
	cp build/benchmark/smd-tsb.md benchmarks/tables/smd-tsb.md
	cat build/benchmark/smd-tsb.md

bench-smd-servers: $(READY)  ## SMD by both protocols, with constants of its own (benchmarks/servers.toml)
	mkdir -p build/benchmark
	for protocol in official tsb-ad; do \
		$(BIN)/edgernn benchmark smd $(BENCH_DATA)/smd --protocol $$protocol --detector benchmarks/servers.toml \
			--table build/benchmark/smd-servers-$$protocol.csv || exit 1; \
	done

bench-budget: $(READY)  ## alarms asked and seen of the general artefact, at BENCH_BUDGET, on each set
	for set in nab skab smd gecco; do \
		folder=$$set; [ $$set != gecco ] || folder=gecco2018; \
		$(BIN)/edgernn benchmark $$set $(BENCH_DATA)/$$folder --detector general --false-alarms $(BENCH_BUDGET) || exit 1; \
	done

bench-sets: $(BENCHES)  ## detection on NAB, SKAB, SMD and GECCO, beside plain methods

overload: $(READY)  ## five minutes of ten times too much, for each policy
	EDGERNN_OVERLOAD_S=300 $(BIN)/pytest -q tests/device/test_overload.py -k ten_times

soak: $(READY)  ## an hour of load, garbage and broker restarts: what grows, what is lost
	$(BIN)/python -m benchmarks.soak

fuzz: $(READY)  ## a million inputs against everything that reads what others send
	$(BIN)/python $(PIP_INSTALL) --editable '.[fuzz]'
	nice $(BIN)/python fuzz/run.py --runs 1000000

clean:  ## everything that was made here
	rm -rf $(VENV) $(BASE_VENV) build dist demo-out .mypy_cache .ruff_cache .pytest_cache .hypothesis
	rm -rf .import_linter_cache

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "edgernn needs Python 3.11 or later; say make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP_INSTALL) --editable '.[dev]'
	@touch $@
