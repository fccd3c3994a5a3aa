# `make train` and `make test` need Python 3.11 to 3.13 and make, nothing else.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
ARGS ?=

.PHONY: install train test test-trains test-slow test-gpu lint clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

# Fine-tunes Xception + DeepLabV3+ on the built-in data. ARGS adds settings: make train ARGS='decoder=fcn8s'
train: install
	$(BIN)/python -m segtune train experiment=first $(ARGS)

# A process per core, up to four; tests/conftest.py gives each one thread.
PYTEST = $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

test: install
	$(PYTEST) $(ARGS)

# The unit tests in which train.precision=auto matters: SEGTUNE_AUTO_PRECISION=bf16 make test-trains
test-trains: install
	$(PYTEST) -m 'trains and not slow and not gpu'

# Minutes long; the tests on real photos also need SEGTUNE_SHARED, see CONTRIBUTING.md.
test-slow: install
	$(PYTEST) -m slow

test-gpu: install
	$(BIN)/python -m pytest -m gpu

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache build dist
