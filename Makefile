# One target a verb; the work is done by the script of the same name in scripts/.
# Every target does its own set-up: nothing has to be installed or activated first.

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint unit component integration acceptance chaos etl bench
.PHONY: test-oldest test-clusters test-stores test-hosts test-browser test-slurm test-commands picture clean

help: ## this list
	@echo "make TARGET, with no set-up before:"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1@\2/p' Makefile | awk -F@ '{printf "%-14s %s\n", $$1, $$2}'

setup: ## make .venv with everything for tests and checks
	@./scripts/setup

demo: ## index real source code, damaged files among it; run it again, or edit demo/source and run it again
	@./scripts/demo

test: ## all checks and all tests
	@./scripts/test

lint: ## ruff, mypy --strict, import contracts
	@./scripts/lint

unit: ## tests of one module each; under 10 s
	@./scripts/unit

component: ## tests of several modules together, on whole datasets
	@./scripts/component

integration: ## tests on a real local cluster and real files
	@./scripts/integration

acceptance: ## command line, documentation, wheel, real signals
	@./scripts/acceptance

chaos: ## kills and races at random moments, the long way
	@./scripts/chaos

etl: ## reports in three stages over a million records, run twice and killed at each step
	@./scripts/etl

bench: ## the benchmarks, with figures
	@./scripts/bench

test-oldest: ## the tests on the oldest supported versions
	@./scripts/test-oldest

test-clusters: ## workers that find out what they have: devices, cores, kills, neighbours
	@./scripts/test-clusters

test-stores: ## datasets on real S3, Azure and Google servers, which are killed too
	@./scripts/test-stores

test-hosts: ## clusters over several hosts (network namespaces): TLS, firewalls, SSH, the doctor
	@./scripts/test-hosts

test-browser: ## the HTML report in a real browser; screenshots in build/screenshots
	@./scripts/test-browser

test-slurm: ## runs on a real Slurm, whose jobs, nodes and controller are killed; installs it
	@./scripts/test-slurm

test-commands: ## external programs: clips transcoded by a real ffmpeg, killed in the middle; installs it
	@./scripts/test-commands

picture: ## render docs/demo.svg from a real run of the demo
	@./scripts/picture

clean: ## remove what make made, the demo's dataset too; keeps nothing but the sources
	@./scripts/clean
