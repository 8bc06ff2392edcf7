# The verbs of this project; people and CI use the same ones. `make` alone lists them.
SHELL := /bin/sh
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
export PATH := $(CURDIR)/.venv/bin:$(PATH)
PYTHON := .venv/bin/python
SCENARIOS := $(notdir $(patsubst %/molecule.yml,%,$(wildcard molecule/*/molecule.yml)))

.DEFAULT_GOAL := help
.PHONY: help setup lab lab-down lint unit faults molecule test build docs

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## .venv with the locked development requirements
	@tests/tools/bootstrap.sh

lab: setup ## the main job for real: lab hosts, site.yml, a streamed completion
	@$(PYTHON) -m tests.lab up

lab-down: setup ## remove every trace of the lab (the download cache stays; CACHE=drop removes it too)
	@$(PYTHON) -m tests.lab down $(if $(filter drop,$(CACHE)),--cache)

lint: setup ## ansible-lint (production), yamllint, ruff, mypy, changelog fragments
	yamllint --strict .
	ruff check .
	ruff format --check .
	mypy
	ansible-lint --strict
	antsibull-changelog lint

unit: setup ## unit and contract tests: no host, no container
	@command -v gcc >/dev/null || $(PYTHON) -c 'from tests.lab import engine; engine.install(["gcc", "libc6-dev"], print)'
	@command -v chromium >/dev/null || $(PYTHON) -c 'from tests.lab import engine; engine.install(["chromium"], print)'
	$(PYTHON) -m pytest tests/unit

faults: setup ## every fault of an instance over two hosts, on real vLLM, with and without Ray (two hours; SHAPES=ray-tensor ...)
	@$(PYTHON) -m tests.lab mirror
	@$(PYTHON) -m tests.cluster.engines $(SHAPES)

molecule: setup ## every role on Debian 12 and 13, and on hosts dressed as Ubuntu and Enterprise Linux
	@$(PYTHON) -m tests.lab mirror
	@for scenario in $(SCENARIOS); do molecule test -s $$scenario || exit 1; done

build: setup docs ## the collection's tarball in build/
	ansible-galaxy collection build --force --output-path build

docs: setup ## the generated pages: role READMEs and module reference
	$(PYTHON) tests/tools/docs.py

test: setup ## everything CI runs, with the seconds of every phase; FRESH=1 repeats what has passed
	@$(PYTHON) -m tests.run
