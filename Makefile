# make demo   set up, then the main job on drawn people      make test   set up, then the tests
# make check  lint, types, import contracts, format          make bench  measure the store named by STORE=
# make lock   pin what pyproject.toml asks for; UPGRADE=1 takes the newest of everything
# make s3-check   run the S3 tests against a one-node Ceph on loopback (root, Debian's ceph-mon ceph-osd radosgw ceph-common)
# make test-long  the tests that take minutes: outages, crashes, PostgreSQL
# make faults break a store in every way there is, for hours; goes on where it was stopped
# make setup TORCH_BACKEND=cpu   a CPU-only torch (6 GB of CUDA packages less); say it once, before anything else

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.9
UV := $(BIN)/uv
TORCH_BACKEND ?=
STORE ?= lookalike-store
UPGRADE ?=
TEST_WORKERS ?= 2
INSTALL := $(UV) pip install --quiet --python $(BIN)/python $(if $(TORCH_BACKEND),--torch-backend $(TORCH_BACKEND))

LOCKED := \# Pinned by 'make lock' from pyproject.toml, for Python 3.11 and newer. Do not edit.
CUDA := ^(nvidia-|cuda-|triton==)

timed = t0=$$(date +%s); echo "== $(1)"; $(2); echo "== $(1): done in $$(( $$(date +%s) - t0 )) s"

.PHONY: help setup setup-dev demo test test-long s3-check check format bench faults lock clean

help:
	@sed -n '1,7s/^# //p' Makefile

$(UV):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"lookalike needs Python 3.11 or newer, got {sys.version.split()[0]}: run make with PYTHON=python3.11")'
	@$(call timed,making $(VENV),$(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION))

$(VENV)/.product: requirements.txt constraints-cuda.txt pyproject.toml | $(UV)
	@$(call timed,installing what lookalike needs into $(VENV),$(INSTALL) -r requirements.txt -c constraints-cuda.txt && $(INSTALL) --no-deps --no-build-isolation -e .)
	@touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.product
	@$(call timed,installing what the tests need into $(VENV),$(INSTALL) -r requirements-dev.txt -c constraints-cuda.txt)
	@touch $@

setup: $(VENV)/.product
setup-dev: $(VENV)/.dev

demo: setup
	@$(call timed,the demo,$(BIN)/lookalike demo)

test: setup-dev
	@$(call timed,the tests,$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadfile $(PYTEST_ARGS))

test-long: setup-dev
	@$(call timed,the long tests,$(BIN)/python -m pytest --long $(PYTEST_ARGS))

s3-check: setup-dev
	@folder=$$(mktemp -d); trap "benchmarks/faults/radosgw.sh stop $$folder; rm -rf $$folder" EXIT; \
	    reached=$$(benchmarks/faults/radosgw.sh start $$folder); eval "$$reached"; \
	    $(BIN)/python -m pytest tests/store/test_s3.py tests/flows/test_build_on_s3.py $(PYTEST_ARGS)

check: setup-dev
	@$(call timed,lint,$(BIN)/ruff check . && $(BIN)/ruff format --check .)
	@$(call timed,types,$(BIN)/mypy)
	@$(call timed,import contracts,$(BIN)/lint-imports)

format: setup-dev
	$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

bench: setup
	@$(BIN)/python -m benchmarks.retrieval --store $(STORE)

faults: setup-dev
	@$(BIN)/python -m benchmarks.faults --long --report docs/reliability.md $(FAULTS_ARGS)

lock: | $(UV)
	@if [ -n "$(UPGRADE)" ]; then rm -f $(VENV)/all.txt $(VENV)/dev.txt; else \
	    grep -vh '^#' requirements.txt constraints-cuda.txt > $(VENV)/all.txt; \
	    grep -vhE '^(#|-r)' requirements.txt constraints-cuda.txt requirements-dev.txt > $(VENV)/dev.txt; fi
	@$(UV) pip compile --quiet --universal --python-version 3.11 --no-annotate --no-header pyproject.toml -o $(VENV)/all.txt
	@$(UV) pip compile --quiet --universal --python-version 3.11 --no-annotate --no-header --group dev -c $(VENV)/all.txt pyproject.toml -o $(VENV)/dev.txt
	@{ echo "$(LOCKED)"; grep -vE '$(CUDA)' $(VENV)/all.txt; } > requirements.txt
	@{ echo "$(LOCKED)"; echo "# What a CUDA build of torch brings along; a CPU-only torch takes none of it."; grep -E '$(CUDA)' $(VENV)/all.txt; } > constraints-cuda.txt
	@{ echo "$(LOCKED)"; echo "-r requirements.txt"; comm -13 <(sort $(VENV)/all.txt) <(sort $(VENV)/dev.txt); } > requirements-dev.txt

clean:
	rm -rf $(VENV) .prefect build *.egg-info
