# Two commands on a fresh machine: `make demo` runs the main job, `make test` the tests. Each installs
# its requirements into .venv. They need git, make and Python 3.11 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
BACKENDS := torch tensorflow jax
REPORTS := conformance/reports
CONFORM = $(BIN)/nfspec conform --force --require jax,torch,tensorflow
.PHONY: help demo test tree gpu dist test-oldest test-newest test-nfspec test-generation test-conformance test-slow bench bench-sources bench-runtimes bench-kernels why lint format schema docs mutations clean $(addprefix test-,$(BACKENDS)) \
  fuzz strangers reports reports-specs reports-modes reports-faults reports-clean reports-matrix reports-small reports-sources reports-tpu

help:
	@grep -E '^## ' $(MAKEFILE_LIST) | sed 's/## //'

# timm pins nothing but pulls torchvision, whose builds do not match every build of torch; the tests
# need its models only, and a stand-in for torchvision is enough for those.
TIMM = PYTHONPATH=$(CURDIR)/tests/standins
$(BIN)/.installed-demo: pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	@echo "Installing the locked versions of the three frameworks (a few minutes, once) ..."
	$(PIP) install --constraint requirements.lock --editable ".[demo]"
	@touch $@

$(BIN)/.installed-test: $(BIN)/.installed-demo
	$(PIP) install --constraint requirements.lock --editable ".[test]"
	$(PIP) install --constraint requirements.lock --no-deps timm
	@touch $@

$(BIN)/.installed-slow: $(BIN)/.installed-test
	$(PIP) install --constraint requirements.lock --editable ".[slow]"
	@touch $@

## make demo       NFNet-F0 on JAX, PyTorch and TensorFlow against the float64 reference
demo: $(BIN)/.installed-demo
	$(BIN)/nfspec show nfnet-f0 --size 256
	$(BIN)/nfspec compare nfnet-f0 --size 256

## make test       the tests
test: $(BIN)/.installed-test
	@# Two runs at a time, the longest first: most of it is compilation on one core. PyTorch's threads
	@# would wait for each other in a loop where two runs share the cores. Hundreds of processes
	@# import nfspec, so that Python keeps what it compiles even where it is told not to.
	@echo "Six runs, two at a time; each prints when it is done (a quarter of an hour in all) ..."
	OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(MAKE) --no-print-directory --jobs 2 --output-sync --keep-going \
	  test-conformance test-nfspec test-jax test-tensorflow test-torch test-generation

test-nfspec: $(BIN)/.installed-test
	$(BIN)/python -m pytest -q --ignore tests/conformance --ignore tests/generation

test-generation: $(BIN)/.installed-test
	$(BIN)/python -m pytest -q tests/generation

test-conformance: $(BIN)/.installed-test
	$(BIN)/python -m pytest -q tests/conformance

# Keras runs on one framework in a process, so these run once for each.
$(addprefix test-,$(BACKENDS)): test-%: $(BIN)/.installed-test
	KERAS_BACKEND=$* $(BIN)/python -m pytest -q tests/backends

## make test-slow  longer tests: kills, several devices, NFNet-F0 (a quarter of an hour)
test-slow: $(BIN)/.installed-slow
	@# TensorFlow's exporters import Keras, which then stays on TensorFlow, and pages train on PyTorch.
	$(BIN)/python -m pytest -q -m slow tests/test_pages.py tests/test_cookbooks.py
	$(BIN)/python -m pytest -q -m slow tests --ignore tests/backends --ignore tests/test_pages.py \
	  --ignore tests/test_cookbooks.py
	for backend in $(BACKENDS); do \
	  KERAS_BACKEND=$$backend $(BIN)/python -m pytest -q -m slow tests/backends tests/cli/test_killed.py || exit 1; \
	done

## make test-oldest  the tests of many parts on the oldest versions (half an hour; PyTorch takes 6 GB)
## make test-newest  the same on the newest versions that the registry has
# docs/versions.md has the figures.
VERSIONED = jax,torch,tensorflow,onnx,openvino,generate,conform,train,parquet,hub
TOOLS = jsonschema onnxscript psutil pytest safetensors
build/oldest/.installed: pyproject.toml requirements-oldest.lock
	rm -rf build/oldest && $(PYTHON) -m venv build/oldest
	build/oldest/bin/pip --disable-pip-version-check --quiet install \
	  --constraint requirements-oldest.lock --editable ".[$(VERSIONED)]" $(TOOLS)
	build/oldest/bin/pip --disable-pip-version-check --quiet install \
	  --constraint requirements-oldest.lock --no-deps timm
	@touch $@

.PHONY: build/newest/.installed
build/newest/.installed: pyproject.toml
	test -d build/newest || $(PYTHON) -m venv build/newest
	build/newest/bin/pip --disable-pip-version-check --quiet install --upgrade \
	  --upgrade-strategy eager --editable ".[$(VERSIONED)]" $(TOOLS)
	build/newest/bin/pip --disable-pip-version-check --quiet install --upgrade --no-deps timm

# Two generated files say what pydantic of requirements.lock writes. Warnings are those of packages
# to each other.
CORE = tests/plan tests/language tests/reference tests/weights tests/rewrites \
  tests/exporters/test_onnx.py tests/exporters/test_openvino.py \
  --deselect tests/language/test_schema.py::test_the_file_is_what_the_models_give \
  --deselect tests/language/test_documents.py::test_the_pages_are_what_the_models_and_the_codes_give
test-oldest test-newest: test-%: build/%/.installed
	OMP_NUM_THREADS=1 build/$*/bin/python -m pytest -q -W default $(CORE)
	for backend in $(BACKENDS); do \
	  OMP_NUM_THREADS=1 KERAS_BACKEND=$$backend build/$*/bin/python -m pytest -q -W default \
	    tests/backends --ignore tests/backends/test_litert.py || exit 1; \
	done
	build/$*/bin/nfspec compare nfnet-f0 --size 128
	build/$*/bin/nfspec conform nf-regnet-b0 --examples 1 --require jax,torch,tensorflow --force \
	  --out build/$*/conform
	for backend in $(BACKENDS); do \
	  build/$*/bin/nfspec train $(REPORTS)/moth.toml digits --backend $$backend --size 32 --epochs 1 \
	    --force --out build/$*/train-$$backend || exit 1; \
	done

## make fuzz       an hour of damaged files for every reader; continues where it was stopped
fuzz: $(BIN)/.installed-test
	PYTHONPATH=tests OMP_NUM_THREADS=1 $(BIN)/python -m fuzzing --seconds 3600 --state build/fuzz

## make mutations  seeded mistakes in the code, and the test that finds each (an hour and a half)
mutations: $(BIN)/.installed-test
	@mkdir -p build
	PYTHONPATH=tests OMP_NUM_THREADS=1 $(BIN)/python -m mutations --state build/mutations.json

## make bench      NFNet-F0 against timm, optax and a plain port: benchmarks/results
bench: $(BIN)/.installed-test
	$(TIMM) $(BIN)/nfspec bench --growth --force --out benchmarks/results

## make bench-sources  the files of nfspec generate, on one core: benchmarks/results/sources (half an hour)
bench-sources: $(BIN)/.installed-test
	$(TIMM) $(BIN)/nfspec bench --cores 1 --force --out benchmarks/results/sources --work $(SOURCE_WORKS)
SOURCE_WORKS = source-torch,source-compiled,source-jax,source-tensorflow,source-mlx,source-step-torch,source-step-jax

## make bench-runtimes  exported files in onnxruntime and OpenVINO, on one core: benchmarks/results/runtimes
bench-runtimes: $(BIN)/.installed-test
	for batch in 1 4; do for network in nfnet-f0 nfnet-f1; do \
	  $(TIMM) $(BIN)/nfspec bench $$network --cores 1 --batch $$batch --force --work runtimes \
	    --out benchmarks/results/runtimes/$$network-$$batch || exit 1; \
	done; done

## make bench-kernels  each kernel against its plain twin, in each framework
bench-kernels: $(BIN)/.installed-test
	for backend in $(BACKENDS); do \
	  KERAS_BACKEND=$$backend $(BIN)/python -m pytest benchmarks/kernels --benchmark-only || exit 1; \
	done

# What reads the package without installing it does not see package-dir, and gets a tree of links.
tree:
	rm -rf build/types && mkdir -p build/types/nfspec/benchmarks
	ln -s $(CURDIR)/nfspec/* build/types/nfspec/
	ln -s $(CURDIR)/benchmarks/*.py $(CURDIR)/benchmarks/gpu build/types/nfspec/benchmarks/
	ln -s $(CURDIR)/conformance $(CURDIR)/backends build/types/nfspec/

## make gpu        a GPU measured, with the frameworks of `make gpu PYTHON=...`: build/gpu (8 minutes)
# Nothing is installed. It goes on where it was stopped.
MINUTES ?= 8
gpu: tree
	PYTHONPATH=$(CURDIR)/build/types:$$PYTHONPATH $(PYTHON) -P -m nfspec.benchmarks.gpu \
	  --out build/gpu --minutes $(MINUTES) $(GPU_OPTIONS)

## make why        training with and without AGC: benchmarks/results/AGC.md (ten minutes)
why: $(BIN)/.installed-test
	$(BIN)/python -P -m nfspec.benchmarks.clipping benchmarks/results

## make reports    regenerate conformance/reports (about an hour)
reports: reports-small reports-specs reports-sources reports-exports reports-modes reports-faults reports-matrix reports-clean

# `make reports-specs SPECS=timm/nf_resnet50` for one. Lines to replay a case of a file's network are
# for the root of a checkout, wherever that is.
SPECS ?= nfnet-f0 nf-regnet-b0 timm/eca_nfnet_l0 $(REPORTS)/moth.toml
reports-specs: $(BIN)/.installed-test
	for spec in $(SPECS); do \
	  name=$$(echo $$spec | sed 's|.*/\(.*\)\.toml|\1|; s|/|-|'); \
	  $(CONFORM) $$spec --out build/conform/$$name || exit 1; \
	  sed "s|cd $(CURDIR) \&\& ||" build/conform/$$name/REPORT.md > $(REPORTS)/$$name.md; \
	done

# The files of `nfspec generate`, each as subject:spec.
SOURCES = torch-source:nfnet-f0 torch-source:timm/eca_nfnet_l0 torch-source:$(REPORTS)/moth.toml \
  jax-source:nfnet-f0 $(addsuffix :nf-regnet-b0,flax-source keras-source keras-source-jax \
  keras-source-torch mlx-source numpy-source)
reports-sources: $(BIN)/.installed-test
	rm -rf build/conform/sources
	for run in $(SOURCES); do \
	  subject=$${run%%:*}; \
	  out=build/conform/sources/$$(echo $$run | tr ':/' '__'); \
	  $(BIN)/nfspec conform $${run#*:} --subject $$subject --require $$subject --out $$out || exit 1; \
	done
	$(BIN)/python -P -m nfspec.conformance.report.sources build/conform/sources/*/results.json > build/SOURCES.md
	cp build/SOURCES.md $(REPORTS)/SOURCES.md

# Files of `nfspec export` in every format, for images of any size and of one. Core ML takes those of
# one size alone where padding depends on the size.
EXPORTS ?= nfnet-f0 nf-regnet-b0 nf-resnet-50 timm/eca_nfnet_l0 $(REPORTS)/moth.toml
EXPORT_FORMATS ?= onnx openvino torch stablehlo savedmodel litert executorch coreml
EXPORT_SIDES ?= 97x130
reports-exports: $(BIN)/.installed-slow
	mkdir -p build/exports
	for spec in $(EXPORTS); do for form in $(EXPORT_FORMATS); do for size in any $(EXPORT_SIDES); do \
	  if [ "$$form $$size" = "coreml any" ]; then continue; fi; \
	  proof=build/exports/$$(echo $$spec-$$form-$$size | tr '/' '_').json; \
	  suffix=$$($(BIN)/python -P -c "from nfspec.backends.exporters.formats import format_of as f; print(f('$$form').suffix)"); \
	  [ -s $$proof ] || $(BIN)/nfspec export $$spec --to $$form --size $$size --force --json \
	    --out build/exports/file$$suffix > $$proof || { mv $$proof $$proof.failed; exit 1; }; \
	done; done; done
	rm -rf build/exports/file.*
	$(BIN)/python -P -m nfspec.conformance.report.exports build/exports/*.json > build/EXPORTS.md
	cp build/EXPORTS.md $(REPORTS)/EXPORTS.md

reports-modes: $(BIN)/.installed-test
	$(CONFORM) --mode bf16,f16 --out build/conform/narrow
	cp build/conform/narrow/REPORT.md $(REPORTS)/narrow.md

reports-faults: $(BIN)/.installed-test
	$(BIN)/nfspec conform --faults --force --mode f32,bf16,f16 --out build/conform/faults
	cp build/conform/faults/FAULTS.md $(REPORTS)/FAULTS.md

# 25 properties are drawn for: over 22,000 cases, each on every framework.
reports-clean: $(BIN)/.installed-test
	$(CONFORM) --examples 900 --seed 1 --out build/conform/clean
	cp build/conform/clean/REPORT.md $(REPORTS)/clean.md

# An hour, with libtpu, which only machines with Linux have: pip install "jax[tpu]".
reports-tpu: $(BIN)/.installed-test
	$(BIN)/nfspec conform nf-regnet-b0 --device tpu --compile-only --backends jax --mode f32,bf16 \
	  --timeout 6000 --force --out build/conform/tpu
	cp build/conform/tpu/REPORT.md $(REPORTS)/tpu.md

reports-matrix: strangers
	cp build/strangers/MATRIX.md $(REPORTS)/MATRIX.md

## make strangers  other people's implementations from PyPI, and the kit on them (half an hour)
# `make strangers STRANGERS="timm optax"` for some.
STRANGERS ?=
strangers: $(BIN)/.installed-test
	$(BIN)/python -P conformance/strangers/run.py $(STRANGERS)

reports-small: $(BIN)/.installed-test
	@mkdir -p build
	$(BIN)/python -P -m nfspec.conformance.report.small > build/small.json
	cp build/small.json $(REPORTS)/small.json

## make lint       formatting, lint and types
lint: $(BIN)/.installed-test tree
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	cd build/types && MYPYPATH=. $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml nfspec

## make format     rewrite the files as the linter wants them
format: $(BIN)/.installed-test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

## make schema     regenerate nfspec/nfspec.schema.json from the models
schema: $(BIN)/.installed-demo
	$(BIN)/python -m nfspec.language.schema

## make docs       regenerate docs/language.md, docs/errors.md and docs/generated
docs: $(BIN)/.installed-demo
	$(BIN)/python -m nfspec.language.documents
	$(BIN)/python -m nfspec.generation.documents

## make dist       wheel and sdist in dist/, checked, and each tried in an empty environment
dist:
	rm -rf dist build/dist
	$(PYTHON) -m venv build/dist/tools
	build/dist/tools/bin/pip --disable-pip-version-check --quiet install build twine
	build/dist/tools/bin/python -m build --outdir dist .
	build/dist/tools/bin/twine check --strict dist/*
	for file in dist/*; do \
	  rm -rf build/dist/empty && $(PYTHON) -m venv build/dist/empty && \
	  build/dist/empty/bin/pip --disable-pip-version-check --quiet install $$file && \
	  build/dist/empty/bin/python -P tests/installed.py || exit 1; \
	done

## make clean      remove the virtual environment and caches
clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
