# Two commands on a fresh machine with Python (>= 3.11) and make:
#   make demo   the whole line on the bundled sample, ending with where the picture is
#   make test   lint, types and tests

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export OMP_NUM_THREADS ?= 1
export HF_HUB_DISABLE_TELEMETRY := 1
export TOKENIZERS_PARALLELISM := false

.PHONY: demo test lint types unit suite slow install clean

demo: install
	$(BIN)/jet-diffusion demo --out outputs/demo --reference reference/model

test: lint types suite

# torch comes first and pinned, so that nothing else chooses another build of it.
$(VENV)/.ready: constraints.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch setuptools
	$(BIN)/python -m pip install --quiet --constraint constraints.txt ".[test]"
	touch $@

# The package itself is installed anew each time: types and tests see what is installed, mapped folders included.
install: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --force-reinstall .
	rm -rf build *.egg-info

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	cd tests && ../$(BIN)/mypy --config-file ../pyproject.toml -p jet_diffusion

unit: install
	$(BIN)/pytest -m "not integration and not slow" -n 2

suite: install
	$(BIN)/pytest -m "not slow" -n 2

slow: install
	$(BIN)/pytest -m slow

clean:
	rm -rf $(VENV) build *.egg-info outputs
