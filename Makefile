# Everything a fresh machine needs: Python >= 3.11, make, and a package index. `make help` lists the targets.

VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
DOCS   := $(VENV)/.docs-installed
BROWSER := $(VENV)/.browser-installed
OUT    := out/demo
CLAIMS := $(patsubst experiments/%/run.py,%,$(sort $(wildcard experiments/*/run.py)))
PYTHON ?=

.PHONY: help demo test suite thorough lint smoke docs docs-check docs-serve explore-check experiments bench clean
.DEFAULT_GOAL := help

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile

demo: $(STAMP) ## compare theory and simulation on the example problem, and say where the figures are
	$(BIN)/rfdiff compare experiments/problem.toml --out $(OUT) --overwrite
	@echo "Figures and data:"; ls $(OUT)/*.png $(OUT)/*.nc | sed 's/^/  /'

test: $(STAMP) ## lint, type check, and the default test suite, side by side
	@$(MAKE) --no-print-directory --jobs=2 lint suite

suite: $(STAMP) ## the default test suite alone
	$(BIN)/python -m pytest -n 2 --dist loadfile

thorough: $(STAMP) ## further cases of what the default test suite tests
	$(BIN)/python -m pytest -n 2 --dist loadfile -m thorough

lint: $(STAMP) ## ruff and mypy alone
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

smoke: $(STAMP) ## every experiment in its small version, which must satisfy the criterion of its claim
	@for name in $(CLAIMS); do echo "$$name"; $(BIN)/python -m experiments.$$name.run --smoke --out out/smoke/$$name || exit 1; done

docs: $(DOCS) ## build the documentation into docs/_build/html; warnings are errors
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

docs-check: docs ## open every page of the documentation in a browser (chromium): formulas, links, outside requests, narrow screens
	$(BIN)/python -m pytest -m site tests/docs

explore-check: $(BROWSER) ## use the explorer in a browser (chromium): every control, two tabs, a restarted server
	$(BIN)/python -m pytest -m "browser and not slow" tests/explorer

docs-serve: docs ## show the documentation at http://127.0.0.1:8000
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory docs/_build/html 8000

experiments: $(STAMP) ## regenerate results, figures and README numbers of all experiments (U-Nets: finished runs, or the small form)
	@for name in $(CLAIMS); do echo "$$name"; \
	  case $$name in images_four_classes) form=--small;; images_*) form=--finished;; *) form=;; esac; $(BIN)/python -m experiments.$$name.run $$form || exit 1; done
	$(BIN)/python -m experiments.harness

bench: $(BROWSER) ## time the package on this machine (results in benchmarks/results)
	@for file in $(filter-out benchmarks/harness.py benchmarks/accelerator_%.py,$(wildcard benchmarks/*.py)); do echo "$$file"; $(BIN)/python "$$file" || exit 1; done

clean: ## remove the environment, caches and outputs
	rm -rf $(VENV) out build dist .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The environment: made again when the declared or pinned packages are newer than it. PYTHON=... chooses the interpreter.
$(STAMP): pyproject.toml constraints.txt
	@set -e; \
	for python in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11; do \
	  if $$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "make: no Python >= 3.11 with venv found (looked for: $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11)." >&2; \
	  echo "      Install one (on Debian also its -venv package), or name it: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; \
	  exit 1; \
	fi; \
	if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	  echo "creating $(VENV) with $$found"; rm -rf $(VENV); $$found -m venv $(VENV); \
	fi
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,images,cluster,data,explore]'
	@touch $(STAMP)

# What the documentation needs besides.
$(DOCS): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs,browser]'
	@touch $@

# What opens pages in a browser.
$(BROWSER): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[browser]'
	@touch $@
