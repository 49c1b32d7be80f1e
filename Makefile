# Needs Python 3.11 or newer, git and make. Everything else goes into .venv.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
# Empty: PyPI's torch, which for Linux carries CUDA (4.5 GB). cpu: the small build; a .venv made
# with it keeps it until told otherwise (make TORCH_BACKEND= setup).
TORCH_BACKEND ?= $(if $(wildcard .venv/.packages-cpu),cpu)

ifneq ($(filter-out cpu,$(TORCH_BACKEND)),)
$(error TORCH_BACKEND is "$(TORCH_BACKEND)": leave it empty, or set it to cpu)
endif

BIN := .venv/bin
UV := $(BIN)/uv
PYPROJECTS := pyproject.toml plugins/fl-core-mlp/pyproject.toml plugins/fl-core-xgboost/pyproject.toml
SCAN := build/scan
SAGEMAKER := build/sagemaker
MLFLOW := build/mlflow
PACKAGES := .venv/.packages-$(or $(TORCH_BACKEND),default)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# test runs its parts in the order given, so that pytest's verdict is the last line.
.NOTPARALLEL:
.PHONY: help setup demo image test test-infra engine lint test-install e2e cluster cluster-down lock quality search bench chaos clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' Makefile

setup: .venv/.ready ## .venv with everything in it; instant when nothing changed

demo: setup ## the heart-disease example, with both models
	$(BIN)/fl run examples/heart-disease-mlp.yaml
	$(BIN)/fl run examples/heart-disease-xgboost.yaml

test: setup lint test-install engine $(SCAN)/.ready $(SAGEMAKER)/.ready $(MLFLOW)/.ready ## lint, types, import rules, a plain pip install, every test but e2e
	@$(BIN)/pytest -n 2 -m "not e2e"

test-infra: setup engine $(SCAN)/.ready ## the infrastructure alone, with its scanners and the engine
	@$(BIN)/pytest -n 2 -m "not e2e or engine" tests/infra tests/e2e

engine: setup ## Pulumi's command line, below build/, where it is not on PATH and Go is
	@$(BIN)/python -m tests.e2e.engine

# The docker client is often there without an engine.
CONTAINER_TOOL ?= $(shell docker info >/dev/null 2>&1 && echo docker || command -v podman \
  || command -v buildah)
IMAGE ?= localhost/fl-silos:dev
PLUGINS ?= fl-core-mlp fl-core-xgboost

image: ## the container image IMAGE, with PLUGINS and TORCH_BACKEND: docker, podman or buildah
	@test -n "$(CONTAINER_TOOL)" || \
	  { echo "No docker engine, podman or buildah: install one of them." >&2; exit 1; }
	$(CONTAINER_TOOL) build --build-arg PLUGINS="$(PLUGINS)" \
	  --build-arg TORCH_BACKEND="$(TORCH_BACKEND)" --tag $(IMAGE) .

e2e: setup ## the stacks with the real engine, the local one on a real cluster; KEEP=1 keeps what it started
	@$(BIN)/python -m tests.e2e

cluster: setup ## a Kubernetes of one node below build/, for e2e and for trying things out; needs root
	@$(BIN)/python -m tests.e2e.cluster build
	@$(BIN)/python -m tests.e2e.cluster up

cluster-down: ## ends it
	@$(BIN)/python -m tests.e2e.cluster down

lint: setup ## ruff, basedpyright, import-linter
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/basedpyright
	$(BIN)/lint-imports --no-logo

quality: setup ## the accuracy figures, over the seeds: benchmarks/results
	$(BIN)/python -m benchmarks.quality

search: setup ## the hyper-parameters of the examples, by validation rows only: benchmarks/results
	$(BIN)/python -m benchmarks.search

bench: setup ## the performance figures, beside stock FedML, Flower, NVFlare and the raw floor; half an hour
	$(BIN)/python -m benchmarks.bench

SEEDS ?= 0:200

chaos: setup ## whole runs under faults: SEEDS=from:to, in virtual time and on real processes
	$(BIN)/python -m tests.chaos.virtual --seeds $(SEEDS)
	$(BIN)/python -m tests.chaos.processes --seeds $(SEEDS)

clean: ## removes what make made, not runs/
	@test ! -e build/e2e/cluster/holder.json || $(MAKE) --no-print-directory cluster-down
	rm -rf .venv build plugins/*/build .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name '*.egg-info' -prune -exec rm -rf {} +
	find . -name __pycache__ -prune -exec rm -rf {} +

# --- setup: each stamp lies in .venv and so goes with it ---

.venv/.uv: requirements/bootstrap.txt
	@test -n "$(PYTHON)" || { echo "No python3 on PATH: install Python 3.11 or newer." >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	  "$(PYTHON) is Python %d.%d; 3.11 or newer is needed: make PYTHON=/path/to/it" % sys.version_info[:2])'
	test -x $(BIN)/python || "$(PYTHON)" -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

# Not `uv pip sync`, which would remove the plugins that a user has put there. What the lock no longer
# names stays as well, until make clean.
INSTALL := $(UV) pip install --quiet --compile-bytecode --python $(BIN)/python --no-deps
# To pip, torch's two builds are one version: only the other build must be replaced.
CPU_TORCH := $(wildcard .venv/lib/*/site-packages/torch-*+cpu.dist-info)

# The index of the CPU builds keeps files of its own, so the lock's hashes cannot cover torch there.
$(PACKAGES): requirements/lock.txt .venv/.uv
	@rm -f .venv/.packages-*
ifeq ($(TORCH_BACKEND),cpu)
	awk '/^[a-z]/ { keep = !/^(torch|triton|nvidia-[^=]*|cuda-[^=]*)==/ } keep' $< > .venv/lock-cpu.txt
	$(INSTALL) --require-hashes -r .venv/lock-cpu.txt
	$(INSTALL) $(if $(CPU_TORCH),,--reinstall-package torch) --torch-backend cpu \
	  "$$(grep -o '^torch==[^ ;]*' $<)"
else
	$(INSTALL) $(if $(CPU_TORCH),--reinstall-package torch) --require-hashes -r $<
endif
	@touch $@

.venv/.ready: $(PACKAGES) $(PYPROJECTS)
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation \
	  -e . -e plugins/fl-core-mlp -e plugins/fl-core-xgboost
	@touch $@

# --- the scanners of tests/infra/scan, apart: checkov pins versions that the program cannot use ---

$(SCAN)/.ready: requirements/scan.txt .venv/.uv
	$(UV) venv --quiet --clear --python $(BIN)/python $(SCAN)
	$(UV) pip sync --quiet --compile-bytecode --require-hashes --python $(SCAN)/bin/python $<
	@touch $@

# --- SageMaker's own SDK, with which tests/tracking reads what was written, apart: it asks for an
# older rich than the program's lock has ---

$(SAGEMAKER)/.ready: requirements/sagemaker.txt .venv/.uv
	$(UV) venv --quiet --clear --python $(BIN)/python $(SAGEMAKER)
	$(UV) pip sync --quiet --compile-bytecode --require-hashes --python $(SAGEMAKER)/bin/python $<
	@touch $@

# --- the MLflow server of tests/tracking, apart: it asks for versions that FedML does not take ---
# With an empty database, whose tables take MLflow several seconds to make.

$(MLFLOW)/.ready: requirements/mlflow.txt .venv/.uv
	$(UV) venv --quiet --clear --python $(BIN)/python $(MLFLOW)
	$(UV) pip sync --quiet --compile-bytecode --require-hashes --python $(MLFLOW)/bin/python $<
	MLFLOW_DISABLE_TELEMETRY=true DO_NOT_TRACK=true \
	  $(MLFLOW)/bin/mlflow db upgrade sqlite:///$(MLFLOW)/empty.db >$(MLFLOW)/upgrade.log 2>&1
	@touch $@

# --- a plain pip install into an empty environment, as a user without this Makefile does it ---
# From a copy, because setuptools builds inside the source tree and picks up what it left there.

TRIAL := build/install
TRIAL_SPEC := examples/heart-disease-mlp.yaml

test-install: setup ## pip install '.[fedml]' ./plugins/fl-core-mlp into an empty environment, and a run there
	@set -eu; \
	deps=$$({ sed '/^\[tool\.ruff\]/,$$d' pyproject.toml; cat plugins/fl-core-mlp/pyproject.toml; } \
	  | sha256sum); \
	all="$$deps $$(find fl_core plugins/fl-core-mlp/fl_core_mlp $(TRIAL_SPEC) -type f \
	  ! -path '*/__pycache__/*' -print0 | sort -z | xargs -0 sha256sum | sha256sum)"; \
	if [ "$$all" = "$$(cat $(TRIAL)/passed 2>/dev/null)" ]; then \
	  echo "test-install: unchanged since it passed"; exit 0; \
	fi; \
	mkdir -p $(TRIAL); rm -rf $(TRIAL)/src $(TRIAL)/work $(TRIAL)/passed; \
	mkdir -p $(TRIAL)/src/plugins $(TRIAL)/work; \
	cp -R pyproject.toml README.md fl_core $(TRIAL)/src; \
	cp -R plugins/fl-core-mlp $(TRIAL)/src/plugins; \
	pip="$(CURDIR)/$(TRIAL)/venv/bin/python -m pip --disable-pip-version-check --no-input"; \
	if [ "$$deps" = "$$(cat $(TRIAL)/deps 2>/dev/null)" ]; then \
	  echo "test-install: only the code changed"; \
	  (cd $(TRIAL)/src && $$pip install --quiet --no-deps --force-reinstall --no-build-isolation \
	    . ./plugins/fl-core-mlp); \
	else \
	  echo "test-install: pip install '.[fedml]' ./plugins/fl-core-mlp"; \
	  rm -rf $(TRIAL)/venv $(TRIAL)/deps; \
	  "$(PYTHON)" -m venv $(TRIAL)/venv; \
	  (cd $(TRIAL)/src && $$pip install --quiet '.[fedml]' ./plugins/fl-core-mlp); \
	  $$pip check; \
	  echo "$$deps" > $(TRIAL)/deps; \
	fi; \
	cd $(TRIAL)/work; \
	../venv/bin/fl plugins --json; \
	../venv/bin/fl run "$(CURDIR)/$(TRIAL_SPEC)" --set rounds=2; \
	echo "$$all" > ../passed

# --- locks: make lock keeps the pins that still fit, make lock UPGRADE=1 takes the newest ---

COMPILE = $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes \
  --no-header --no-annotate $(if $(UPGRADE),--upgrade)
FITTED = --overrides requirements/overrides.txt --excludes requirements/excludes.txt

lock: .venv/.uv ## requirements/*.txt anew from the pyprojects and *.in; UPGRADE=1 for the newest versions
	$(COMPILE) requirements/bootstrap.in -o requirements/bootstrap.txt
	$(COMPILE) $(PYPROJECTS) requirements/dev.in --extra fedml --extra s3 --extra infra $(FITTED) \
	  -o requirements/lock.txt
	$(COMPILE) $(PYPROJECTS) --extra fedml --extra s3 $(FITTED) \
	  --excludes requirements/image-excludes.txt -c requirements/lock.txt -o requirements/image.txt
	$(COMPILE) requirements/scan.in -o requirements/scan.txt
	$(COMPILE) pyproject.toml requirements/sagemaker.in \
	  --excludes requirements/sagemaker-excludes.txt -o requirements/sagemaker.txt
	$(COMPILE) requirements/mlflow.in -o requirements/mlflow.txt
