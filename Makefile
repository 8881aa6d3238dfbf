# Two commands on a fresh machine: `make demo` runs the main job, `make test` the tests. Each installs
# what it needs into .venv; nothing is needed before but git, make and Python 3.11 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
BACKENDS := torch tensorflow jax
.PHONY: help demo test test-nfspec bench lint format schema clean $(addprefix test-,$(BACKENDS))

help:
	@grep -E '^## ' $(MAKEFILE_LIST) | sed 's/## //'

# timm pins nothing but pulls torchvision, whose builds do not match every build of torch; the tests
# need its models only.
$(BIN)/.installed-demo: pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	@echo "Installing the locked versions of the three frameworks (a few minutes, once) ..."
	$(PIP) install --constraint requirements.lock --editable ".[demo]"
	@touch $@

$(BIN)/.installed-test: $(BIN)/.installed-demo
	$(PIP) install --constraint requirements.lock --editable ".[test]"
	$(PIP) install --constraint requirements.lock --no-deps timm
	@touch $@

## make demo       NFNet-F0 on JAX, PyTorch and TensorFlow against the float64 reference
demo: $(BIN)/.installed-demo
	$(BIN)/nfspec show nfnet-f0 --size 256
	$(BIN)/nfspec compare nfnet-f0 --size 256

## make test       the tests
test: $(BIN)/.installed-test
	@# Two runs at a time, the longest first: most of it is compilation on one core.
	@echo "Four runs, two at a time; each prints when it is done (about ten minutes in all) ..."
	$(MAKE) --no-print-directory --jobs 2 --output-sync test-jax test-nfspec test-tensorflow test-torch

test-nfspec: $(BIN)/.installed-test
	$(BIN)/python -m pytest -q

# Keras runs on one framework in a process, so these run once for each.
$(addprefix test-,$(BACKENDS)): test-%: $(BIN)/.installed-test
	KERAS_BACKEND=$* $(BIN)/python -m pytest -q tests/backends

## make bench      forward pass against timm's, in each framework
bench: $(BIN)/.installed-test
	for backend in $(BACKENDS); do \
	  KERAS_BACKEND=$$backend $(BIN)/python -m pytest benchmarks --benchmark-only || exit 1; \
	done

## make lint       formatting, lint and types
lint: $(BIN)/.installed-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	@# Tools that read code without importing it do not see package-dir, so they get a tree of links.
	rm -rf build/types && mkdir -p build/types/nfspec
	ln -s $(CURDIR)/nfspec/* build/types/nfspec/
	ln -s $(CURDIR)/backends build/types/nfspec/backends
	ln -s $(CURDIR)/conformance build/types/nfspec/conformance
	cd build/types && MYPYPATH=. $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml nfspec

## make format     rewrite the files as the linter wants them
format: $(BIN)/.installed-test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

## make schema     regenerate nfspec/nfspec.schema.json from the models
schema: $(BIN)/.installed-demo
	$(BIN)/python -m nfspec.schema

## make clean      remove the virtual environment and caches
clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache
