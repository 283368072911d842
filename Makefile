# On a fresh machine with Python (>= 3.11) and make:
#   make demo   the whole line on the bundled sample, ending with where the picture is
#   make dev    the package as links to this tree, and all that its tests and checks need
#   make test   lint, types and tests
#   make docs   the documentation site, in site/

PYTHON ?= python3
VENV ?= .venv
LOWEST ?= .venv-lowest
BIN := $(VENV)/bin
PIP_INSTALL := -m pip install --quiet
PYTEST := $(BIN)/python -m pytest
export HF_HUB_DISABLE_TELEMETRY := 1
export TOKENIZERS_PARALLELISM := false

.PHONY: demo dev test lint types unit suite slow faults fuzz clusters test-lowest docs clean

demo: dev
	$(BIN)/jet-diffusion demo --out outputs/demo
	@echo "(in this terminal first: source $(BIN)/activate)"

# torch comes first and pinned, so that nothing else chooses another build of it.
$(VENV)/.ready: constraints.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP_INSTALL) --constraint constraints.txt torch setuptools
	$(BIN)/python $(PIP_INSTALL) --constraint constraints.txt --no-build-isolation --editable ".[dev]"
	touch $@

# Editable: an edit is seen at once, by Python, the tests, the type checker and editors.
dev: $(VENV)/.ready

test: lint types suite

lint: dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: dev
	$(BIN)/mypy

unit: dev
	$(PYTEST) -m "not integration and not slow" -n 2

suite: dev
	$(PYTEST) -m "not slow" -n 2

slow: dev
	$(PYTEST) -m slow

# At most half an hour: kills, full disks (as root) and the tables of faults. Prints fault, tried, survived, what was wrong.
KILLS ?= 25
faults: dev
	$(BIN)/python $(PIP_INSTALL) --constraint constraints.txt --no-build-isolation --editable ".[simulation]"
	PYTHONPATH=tests $(BIN)/python tests/faults/break_all.py --kills $(KILLS)

# Mutated files for the readers, so many seconds each; what is found lies in outputs/fuzz.
SECONDS ?= 60
fuzz: dev
	$(BIN)/python $(PIP_INSTALL) atheris
	$(BIN)/python tests/fuzz.py --seconds $(SECONDS)

# SLURM's launches, Dask's workers, and two machines on one. The latter take root and the command ip; else they are skipped.
clusters: dev
	$(BIN)/python $(PIP_INSTALL) --constraint constraints.txt --no-build-isolation --editable ".[dask]"
	$(PYTEST) tests/clusters

# The lowest releases that pyproject.toml admits, torch aside: that is the pinned one. Old libraries warn of what the
# newest of their own dependencies deprecate, so that warnings are no errors there.
$(LOWEST)/.ready: constraints.txt pyproject.toml .ci/lowest.py
	$(PYTHON) -m venv --clear $(LOWEST)
	$(LOWEST)/bin/python $(PIP_INSTALL) --constraint constraints.txt torch
	$(PYTHON) .ci/lowest.py test > $(LOWEST)/lowest.txt
	$(LOWEST)/bin/python $(PIP_INSTALL) --requirement $(LOWEST)/lowest.txt
	$(LOWEST)/bin/python $(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	touch $@

test-lowest: $(LOWEST)/.ready
	$(LOWEST)/bin/python -m pytest -W default -m "not integration and not slow" -n 2

# Strict: a broken link or reference fails.
docs: dev
	$(BIN)/python $(PIP_INSTALL) --constraint constraints.txt --no-build-isolation --editable ".[docs]"
	$(BIN)/zensical build --strict --clean

clean:
	rm -rf $(VENV) $(LOWEST) build dist *.egg-info outputs site
