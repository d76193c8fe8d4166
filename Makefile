# The only commands to learn. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
VLLM_STAMP := $(VENV)/.installed-vllm

.PHONY: help install install-vllm serve test test-vllm check format campaign generate bench clean

help: ## List the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

$(STAMP): requirements.lock
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is needed; install it or pass PYTHON=/path/to/python3.11"; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "$(PYTHON) is not Python 3.11; pass PYTHON=/path/to/python3.11"; exit 2; }
	@test -x $(BIN)/python || { echo "Creating $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "Installing pinned packages (a few minutes the first time)"
	@$(BIN)/python -m pip install --disable-pip-version-check --progress-bar on -r requirements.lock
	@touch $(STAMP)

install: $(STAMP) ## Create .venv with every pinned package

# Without --no-deps pip would fetch CUDA builds that do not load beside a CPU torch.
$(VLLM_STAMP): $(STAMP) requirements-vllm.lock
	@echo "Installing vLLM's CPU build (4 GB; a few minutes the first time)"
	@$(BIN)/python -m pip install --disable-pip-version-check --progress-bar on --no-deps -r requirements-vllm.lock
	@touch $(VLLM_STAMP)

install-vllm: $(VLLM_STAMP) ## Add vLLM's CPU build to .venv, for the engine vllm

serve: $(STAMP) ## Run the whole system on this machine; Ctrl-C stops it
	@exec $(BIN)/python -m deployments.local $(ARGS)

check: $(STAMP) ## Format, lint, strict types, import contracts (fast)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	PYTHONPATH=. $(BIN)/lint-imports

format: $(STAMP) ## Rewrite the files as `make check` wants them
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test: check ## `make check`, then every test on real parts
	$(BIN)/python -m pytest --ignore=tests/serve --ignore=tests/vllm $(ARGS)
	$(BIN)/python -m pytest tests/serve $(ARGS) # a process of its own: what Ray leaves in one must not reach these systems

test-vllm: $(VLLM_STAMP) ## The whole graph with a real vLLM engine and a small random model, on the processor
	$(BIN)/python -m pytest tests/vllm $(ARGS)

campaign: $(STAMP) ## Run the demo campaign, on the running cluster or on its own
	@$(BIN)/python -m deployments.local --run -m batch.cli --customers 500 $(ARGS)

generate: $(STAMP) ## A text for each line: ARGS="--input rows.jsonl --output out.jsonl"
	@$(BIN)/python -m deployments.local --run -m batch.generate $(ARGS)

context-report: $(STAMP) ## How context strategies did: ARGS="--experiment NAME"
	@$(BIN)/python -m providers.context_report $(ARGS)

train-insights: $(STAMP) ## Train churn and next best action on the history in the database
	@$(BIN)/python -m providers.insights_training $(ARGS)

bench: $(STAMP) ## Compare and measure; prints the tables of bench/README.md
	@$(BIN)/python -m bench $(ARGS)

clean: ## Remove the durable state of this machine (database, knowledge, reports)
	rm -rf .rapport
