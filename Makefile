# A fresh clone needs nothing but Python 3.10, 3.11 or 3.12. `make help` lists the targets.
SHELL := /bin/sh
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
# This takes the first interpreter that runs and that MindSpore has wheels for. PYTHON=... chooses another.
PYTHON ?= $(shell for candidate in python3 python3.12 python3.11 python3.10 python; do \
	$$candidate -c 'import sys, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 13))' 2>/dev/null \
	&& echo $$candidate && break; done)
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint .ci/constraints.txt
ARGS ?=

.PHONY: help install train sweep ui test test-slow test-compilers test-aarch64 test-wheel test-versions test-faults lint format benchmark pictures lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /  make \1|/' | column -t -s '|'
	@echo
	@echo "  ARGS=... is passed on, as in: make train ARGS='arch=fcn16s trainer.epochs=10'"

install: $(VENV)/installed ## make .venv with the package in it

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "make: no Python 3.10, 3.11 or 3.12 found; give one with PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# These files are stamps that record an installation: a target installs again only after its inputs have changed.
$(VENV)/installed: pyproject.toml .ci/constraints.txt | $(VENV)/bin/python
	$(INSTALL) --editable .
	@touch $@

$(VENV)/installed-test: pyproject.toml .ci/constraints.txt | $(VENV)/bin/python
	$(INSTALL) --editable '.[test]'
	@touch $(VENV)/installed $@

$(VENV)/installed-slow: pyproject.toml .ci/constraints.txt | $(VENV)/bin/python
	$(INSTALL) --editable '.[test,slow]'
	@touch $(VENV)/installed $(VENV)/installed-test $@

WORKERS ?= 1
train: $(VENV)/installed ## train FCN-8s on generated images, about three minutes; WORKERS=2 for two processes
	$(BIN)/python -m fcnlab.train arch=fcn8s $(if $(filter-out 1,$(WORKERS)),trainer.parallel=data trainer.workers=$(WORKERS)) $(ARGS)

sweep: $(VENV)/installed ## train FCN-32s, 16s and 8s, one after the other
	$(BIN)/python -m fcnlab.train -m arch=fcn32s,fcn16s,fcn8s $(ARGS)

ui: $(VENV)/installed ## show the runs in a browser
	$(BIN)/mlflow ui $(ARGS)

# The worker processes share what Python compiles, whatever the environment says.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

test: $(VENV)/installed-test ## run the tests
	$(PYTEST) $(ARGS)

test-slow: $(VENV)/installed-slow ## run the tests that take minutes: PostgreSQL and Chromium where they are installed
	$(PYTEST) -m slow $(ARGS)

# A compiler that is not installed is named and passed over.
COMPILERS ?= $(foreach version,9 10 11 12 13 14 15,g++-$(version)) \
	$(foreach version,11 12 13 14 15 16 17 18 19 20 21,clang++-$(version))
NUMERICAL := $(foreach name,bfloat16_convolution channel_sums convolution direct_convolution normalisation normalised_convolution pixel_cross_entropy upsampling,tests/kernels/test_$(name).py)

test-compilers: $(VENV)/installed-test ## test the compiled operators with every compiler of COMPILERS that is installed
	@failed=; for compiler in $(COMPILERS); do \
		if ! command -v $$compiler >/dev/null; then echo "$$compiler is not installed"; continue; fi; \
		echo "$$compiler:"; CXX=$$compiler $(BIN)/python -m pytest -q -p no:cacheprovider $(NUMERICAL) $(ARGS) \
			|| failed="$$failed $$compiler"; \
	done; test -z "$$failed" || { echo "make: the operators fail with$$failed"; exit 1; }

# The first processor has registers of 16 bytes, and the second longer ones as well, which GCC uses for plain loops.
test-aarch64: $(VENV)/installed-test ## test the compiled operators for AArch64 under QEMU, if the tools are installed
	@for tool in aarch64-linux-gnu-g++ "qemu-aarch64 or qemu-aarch64-static"; do \
		for name in $$tool; do command -v $$name >/dev/null && continue 2; done; \
		echo "skipped: $$tool is not installed (apt install g++-aarch64-linux-gnu qemu-user-static)"; exit 0; \
	done; for processor in neoverse-n1 neoverse-v1; do \
		FCNLAB_TEST_AARCH64=$$processor $(BIN)/python -m pytest -q -p no:cacheprovider $(NUMERICAL) tests/kernels/test_parallel.py $(ARGS) || exit 1; \
	done

# PYTHONPATH is cleared, so that nothing but the wheel is imported.
test-wheel: ## build the wheel, install it with the lock into an empty environment, and train from an empty folder
	@set -e; folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; unset PYTHONPATH; \
	"$(PYTHON)" -m venv "$$folder/venv"; pip="$$folder/venv/bin/python -m pip --quiet --disable-pip-version-check"; \
	$$pip wheel --no-deps --wheel-dir "$$folder" .; \
	$$pip install --constraint .ci/constraints.txt "$$folder"/*.whl; \
	mkdir "$$folder/empty"; cd "$$folder/empty"; XDG_CACHE_HOME="$$folder/cache" HOME="$$folder/empty" \
		../venv/bin/python -m fcnlab.train experiment=smoke $(ARGS); test -s mlflow.db

# What MindSpore, numpy and MLflow compute and store. Each environment takes 3.4 GB and is kept. The oldest versions go
# with Python 3.10 and the newest with 3.12, where these are installed.
CORE := $(foreach room,kernels losses metrics models training data inference recording tracking,tests/$(room)) tests/test_train.py
VERSIONS ?= oldest newest
oldest := --resolution lowest-direct
newest := --upgrade
PYTHON_OF_oldest ?= $(shell python3.10 -c '' 2>/dev/null && echo python3.10 || echo $(PYTHON))
PYTHON_OF_newest ?= $(shell python3.12 -c '' 2>/dev/null && echo python3.12 || echo $(PYTHON))

test-versions: $(VENV)/installed-test ## run the core of the suite with the oldest and the newest versions that are allowed
	$(BIN)/python -m pip install --quiet 'uv>=0.8'
	@set -e; $(foreach end,$(VERSIONS),echo "$(end) versions, $$($(PYTHON_OF_$(end)) --version):"; \
		test -d .venv-$(end) || $(PYTHON_OF_$(end)) -m venv .venv-$(end); \
		$(BIN)/uv pip compile --quiet --no-annotate --no-header --extra test $($(end)) \
			--python .venv-$(end)/bin/python pyproject.toml --output-file .venv-$(end)/versions.txt; \
		$(BIN)/uv pip sync --quiet --python .venv-$(end)/bin/python .venv-$(end)/versions.txt; \
		$(BIN)/uv pip install --quiet --no-deps --python .venv-$(end)/bin/python --editable .; \
		grep -E '^(mindspore|numpy|mlflow|opencv-python-headless)==' .venv-$(end)/versions.txt; \
		.venv-$(end)/bin/python -m pytest -q -p no:cacheprovider --numprocesses auto --maxprocesses 4 \
			--dist worksteal $(CORE) $(ARGS);)

MINUTES ?= 10
test-faults: $(VENV)/installed-test ## kill and disturb trainings for MINUTES=10, and print what became of them
	$(BIN)/python tests/faults.py --minutes $(MINUTES) $(ARGS)

lint: $(VENV)/installed-test ## check style, formatting and which package may import which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo

format: $(VENV)/installed-test ## correct style and formatting
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/installed-benchmark: pyproject.toml .ci/constraints.txt | $(VENV)/bin/python
	$(INSTALL) --editable '.[benchmark]'
	@touch $(VENV)/installed $@

benchmark: $(VENV)/installed-benchmark ## time training and inference against PyTorch; ARGS=--quick for four rows
	$(BIN)/python experiments/benchmarks/speed.py $(ARGS)

SLICES ?= isbi2012
pictures: $(VENV)/installed ## draw the picture of experiments/isbi2012 anew, from ISBI 2012's slices in SLICES=isbi2012
	$(BIN)/python experiments/isbi2012/pictures.py "$(SLICES)" outputs/pictures experiments/isbi2012/strides.png

# pyproject.toml says why MindSpore stays at 2.8 here.
lock: $(VENV)/bin/python ## renew .ci/constraints.txt from pyproject.toml
	$(BIN)/python -m pip install --quiet 'uv>=0.8'
	echo 'mindspore<2.9' | $(BIN)/uv pip compile --universal --python-version 3.10 --extra test --extra slow --upgrade \
		--quiet --no-annotate --no-header --constraint - pyproject.toml --output-file .ci/constraints.txt

clean: ## remove .venv and caches; runs and checkpoints stay
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis
