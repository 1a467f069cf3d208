# Two commands matter: `make demo` and `make test`.  Each sets up what it needs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
STAMP_DEV := $(VENV)/.installed-dev

.PHONY: demo test check lint types imports test-slow fuzz test-gpu e2e-vllm generate system-packages clean

demo: $(STAMP)
	@sh deploy/system-packages.sh --optional prometheus promtool
	$(BIN)/tidegauge demo $(if $(ONCE),--once) $(if $(SPEED),--speed $(SPEED)) $(if $(RECORDING),--recording $(RECORDING))

test: $(STAMP_DEV) system-packages check
	$(BIN)/pytest

check: lint types imports

lint: $(STAMP_DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP_DEV)
	$(BIN)/mypy

imports: $(STAMP_DEV)
	$(BIN)/lint-imports

# Takes minutes: long calibrations and large inputs.
test-slow: $(STAMP_DEV) system-packages
	$(BIN)/pytest -m slow --timeout 1800

# Coverage-guided fuzzing of what comes from outside, ten minutes each.
fuzz: $(STAMP_DEV)
	for target in otlp_protobuf otlp_json exposition; do $(BIN)/python -m tests.fuzz $$target --seconds 600 || exit 1; done

# On a machine with an NVIDIA GPU: the collector's values beside nvidia-smi's.
test-gpu: $(STAMP_DEV)
	$(BIN)/pytest -m gpu -s

# A real vLLM with a real model on the CPU, through to scores, drift and a fired alert: 4 GB of downloads, minutes.
e2e-vllm: $(STAMP_DEV) system-packages
	$(BIN)/python -m tests.e2e.vllm

# Writes again what is generated from the catalog: dashboards, rules, reference pages.
generate: $(STAMP_DEV)
	$(BIN)/tidegauge dashboards build --out deploy/grafana/dashboards
	$(BIN)/tidegauge alerts build --out deploy
	$(BIN)/python -m catalog.docs
	$(BIN)/python -m tests.collector.dialects_page
	$(BIN)/python -m alerts.reference docs/alerts.md
	$(BIN)/python -m service.config_reference
	$(BIN)/python -m service.cli_reference

system-packages:
	@sh deploy/system-packages.sh prometheus promtool amtool prometheus-alertmanager victoria-metrics

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(STAMP): pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(STAMP_DEV): pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $(STAMP) $@

clean:
	rm -rf $(VENV) tidegauge-data .mypy_cache .ruff_cache .pytest_cache .hypothesis
