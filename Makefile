# `make` alone prints what there is. Variables are given in the environment or on the command line:
# make run PORT=9000 DEMO=0
VENV ?= .venv
BIN := $(VENV)/bin
# Options for pytest; -n auto runs one process per core: make test ARGS="-k cron -x"
ARGS ?= -n auto
# 1 measures branch coverage, of subprocesses too, and fails below the minimum.
COVERAGE ?= 0
COVERAGE_MINIMUM ?= 95
# Which drills to run, with options: make drills DRILLS="check-the-checker --short"
DRILLS ?= all
UV ?= uv
# How long `make soak` goes on.
MINUTES ?= 30
export VENV

.DEFAULT_GOAL := help
.PHONY: help install install-dev run stop reset test check static lint types imports migrations audit docs containers bench bench-required soak drills lock clean

help: ## Print this help
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'
	@echo "Variables of run: PORT, FLOWER_PORT, DATA_DIR, DATABASE_URL, REDIS_URL, ADMIN_USER, ADMIN_PASSWORD, DEMO=0"

install:
	@./.ci/install requirements.txt

install-dev:
	@./.ci/install requirements-dev.txt

run: install ## Start everything: servers, web, worker, beat and Flower (Ctrl-C stops it)
	@$(BIN)/python manage.py up

stop: ## Stop what `make run` started, from another terminal
	@if [ -x $(BIN)/python ]; then $(BIN)/python manage.py stop; else echo "Nothing is installed here, so nothing runs."; fi

reset: ## Stop, and delete the local data
	@if [ -x $(BIN)/python ]; then $(BIN)/python manage.py reset; else echo "Nothing is installed here, so there are no data."; fi

test: install-dev ## Run the tests; they start their own Postgres and Redis
ifeq ($(COVERAGE),1)
	@$(BIN)/python -m coverage erase
	$(BIN)/python -m coverage run -m pytest $(ARGS)
	@$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report --fail-under=$(COVERAGE_MINIMUM)
else
	$(BIN)/python -m pytest $(ARGS)
endif

static: lint types imports migrations audit docs containers ## Check all that can be checked without running it

check: static ## Run all that the continuous integration runs
	@$(MAKE) --no-print-directory test COVERAGE=1

lint: install-dev ## Check style and formatting (ruff)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install-dev ## Check types (mypy --strict)
	$(BIN)/mypy

imports: install-dev ## Check who imports whom (import-linter)
	$(BIN)/lint-imports

migrations: install-dev ## Check that the migrations match the models
	$(BIN)/python -W ignore::RuntimeWarning manage.py makemigrations --check --dry-run --skip-checks

audit: install-dev ## Check that the locks are pinned and hashed and what is installed is what they say
	$(BIN)/python .ci/audit-dependencies

docs: install-dev ## Build the documentation into site/, strictly
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

containers: install-dev ## Check the container files, without a container engine
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker/compose.yaml
	@if [ -x $(BIN)/hadolint ]; then set -x; $(BIN)/hadolint docker/Dockerfile; else echo "hadolint: none for this machine"; fi

bench: install-dev ## Measure, beside peers in an environment of their own, and write the figures to tests/benchmarks/results
	@VENV=$(VENV)-bench ./.ci/install requirements-bench.txt
	$(BIN)/python -m tests.benchmarks

bench-required: install-dev ## Measure the limits that must be kept: one table, pass or fail
	$(BIN)/python -m tests.benchmarks.bench_required

soak: install-dev ## Half an hour of mixed load: memory and waiting flat, nothing lost (MINUTES=2 for a short one)
	$(BIN)/python -m tests.benchmarks.bench_soak --minutes $(MINUTES)

drills: install-dev ## Break things on purpose and show what was lost (nothing)
	$(BIN)/python manage.py drill $(DRILLS)

lock: ## Write the lock files anew from pyproject.toml (needs uv)
	@command -v $(UV) >/dev/null || { echo "uv is missing: pip install uv, or name it: make lock UV=/path/to/uv"; exit 1; }
	$(UV) pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-header \
		--no-emit-index-url --extra embedded --output-file requirements.txt
	$(UV) pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-header \
		--no-emit-index-url --extra embedded --group dev --constraint requirements.txt --output-file requirements-dev.txt
	$(UV) pip compile --universal --python-version 3.11 --generate-hashes --no-header \
		--no-emit-index-url --group bench --constraint requirements-dev.txt --output-file requirements-bench.txt

clean: ## Delete caches and the virtual environment (not the data)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage .coverage.* htmlcov build dist *.egg-info
