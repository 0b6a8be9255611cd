# One word per check; a person, the pre-commit hook and .ci/run all use the same words.
# Paths are relative, so the folder's own path may hold spaces; nothing here needs a network once `setup` has run.

PY := .venv/bin/python
INSTALLED := .venv/.installed
TORCH_INDEX ?=
TEST_SECONDS := 3600
# The tests of a file stay together. More workers than two need a machine with more than two cores.
TEST_WORKERS := 2
# The tests that want a bucket, by file and name.
CEPH_FILES := stores log_races pipeline consumers status_doctor registry_commands report_command init
CEPH_TESTS := (stores and not local) or s3 or bucket or credentials

.DEFAULT_GOAL := help
.PHONY: help setup fmt lint types arch test test-integration test-e2e test-ceph check demo up down evidence-main evidence-clicks evidence-prefect evidence-log clean

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z][a-z0-9-]*:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' Makefile

setup: $(INSTALLED) ## Build .venv from constraints.txt (TORCH_INDEX=URL: where to find CPU wheels of torch, if not in pip's own index)

$(INSTALLED): pyproject.toml constraints.txt
	@if [ ! -x $(PY) ]; then \
	  for python in python3.11 python3; do \
	    if "$$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' 2>/dev/null; then \
	      exec "$$python" -m venv .venv; \
	    fi; \
	  done; \
	  echo "setup: no Python found; required 3.11 or 3.12 as python3.11 or python3 on PATH" >&2; exit 1; \
	fi
	$(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
	  $(if $(TORCH_INDEX),--extra-index-url "$(TORCH_INDEX)") --editable '.[dev]'
	@touch $@

fmt: setup ## Format the source and fix what can be fixed safely
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

lint: setup ## Check style and format
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

types: setup ## Check types: strictly in deepfm and flows, leniently in tests and examples
	$(PY) -m mypy deepfm flows deployments tests examples conftest.py

arch: setup ## Check the import contracts and the rules about the source
	.venv/bin/lint-imports
	$(PY) -m pytest tests/architecture

test: setup ## Run every test but the benchmarks, with branch coverage
	$(PY) -m pytest -m "not benchmark" --numprocesses=$(TEST_WORKERS) --dist=loadfile --no-loadscope-reorder --session-timeout=$(TEST_SECONDS) --cov --cov-branch --cov-report=term

test-integration: setup ## Run the tests that need a real store or runtime
	$(PY) -m pytest tests/integration

test-e2e: setup ## Run the tests that live through a user's day
	$(PY) -m pytest tests/e2e

test-ceph: setup ## Run the tests of buckets against Ceph (not part of `make test`; needs Debian's radosgw, ceph-mon and ceph-osd)
	@$(PY) -m tests.ceph
	S3_SERVER=ceph $(PY) -m pytest $(CEPH_FILES:%=tests/integration/test_%.py) -k "$(CEPH_TESTS)"

check: test lint types arch ## Run everything that has to pass before a commit is shared

demo: setup ## Retrain a model over synthetic days and consume it (DEMO_DIR=./demo)
	$(PY) -m examples.demo

up: setup ## Start a Prefect server, an S3 store with clicks and two workers on this machine (UP_DIR=./up, UP_PORT=4200, UP_DATABASE=URL)
	$(PY) -m deployments.up

down: ## End everything that `make up` started; the data stays
	$(PY) -m deployments.down

evidence-main: setup ## Measure what the documents claim (REAL_CLICKS=DIR adds real click data)
	$(PY) -m tests.evidence.main

evidence-clicks: setup ## Measure what is said of clicks of your own, and make 23,000 mistakes (REAL_CLICKS=DIR as above, MISTAKES=N of each kind)
	$(PY) -m tests.evidence.clicks

evidence-prefect: setup ## Measure what is said of schedules, pools and backfills, on a real server with real workers
	$(PY) -m tests.evidence.prefect

evidence-log: setup ## Measure what is said of the promotion log: writers that race, calls that fail, kills
	$(PY) -m tests.evidence.log

clean: ## Remove caches and build leftovers; .venv, stores and demos stay
	rm -rf .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build dist htmlcov
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +
