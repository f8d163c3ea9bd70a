# make demo      trains, scores and exports a small model: some minutes
# make test      the linter, all examples of the documentation, and all tests
# make check     the same without the slow tests: those that train, for example
# make docs      the documentation site, into site/
# make fuzz      hostile inputs of every kind, and faults: an hour; a tenth of
#                it by FUZZ=--share=0.1
# make lock      renews constraints.txt, the versions that all of these install
#
# They need a Python from 3.10 on and install the rest into .venv, once:
# docs/installation.md. Two settings go with any of them: CONSTRAINTS= takes the
# newest of everything, CPU=1 takes PyTorch without CUDA, 1.3 instead of 5.8 GB.
CONSTRAINTS = constraints.txt
CPU =

VENV := .venv
BIN := $(VENV)/bin
METADATA := setup.cfg pyproject.toml
# Of the Pythons that are found, the first that runs, is new enough and can make
# a virtual environment: pyenv's shims may do nothing of that.
CAN := import ensurepip, sys; sys.exit(sys.version_info < (3, 10))
PYTHON ?= $(shell for python in \
	python3.11 python3.12 python3.13 python3.14 python3.10 python3 python; \
	do $$python -c '$(CAN)' 2>/dev/null && echo $$python && break; done)

# A stamp bears the name of what the versions were from, so that .venv follows
# a change of CONSTRAINTS; the newest are looked for each time.
VERSIONS := $(or $(notdir $(CONSTRAINTS)),newest)
STAMPS := $(VENV)/installed
FOR_DEMO := $(STAMPS)-demo-$(VERSIONS)
FOR_DOCS := $(STAMPS)-docs-$(VERSIONS)
FOR_TEST := $(STAMPS)-test-$(VERSIONS)
NEEDED := $(METADATA) $(or $(CONSTRAINTS),newest)
CPU_BUILDS := https://download.pytorch.org/whl/cpu
INSTALL = $(BIN)/python -m pip install -qq \
	$(if $(CONSTRAINTS),-c $(CONSTRAINTS),-U --upgrade-strategy eager) \
	$(if $(CPU),--extra-index-url $(CPU_BUILDS))

# Files start in the order of tests/conftest.py: the long ones first.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile \
	--no-loadscope-reorder

.PHONY: demo test check docs fuzz lint lock clean newest

demo: $(FOR_DEMO)
	@$(BIN)/python -m unispeech_sb demo

test: lint
	@$(PYTEST)

check: lint
	@$(PYTEST) -m 'not slow'

docs: $(FOR_DOCS)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "Open site/index.html, or serve it: python -m http.server -d site"

fuzz: $(FOR_TEST)
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz.fuzzing $(FUZZ)
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz.audio
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz.texts

lint: $(FOR_TEST)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

# torch is held at the last release for Python 3.10: one lock, one torch.
lock: | $(BIN)/python
	@$(BIN)/python -m pip install -qq uv
	@echo 'torch<2.15' | $(BIN)/uv pip compile -q --upgrade --universal \
		--python-version 3.10 --all-extras --no-annotate --no-emit-index-url \
		--custom-compile-command 'make lock' -o constraints.txt setup.cfg -

clean:
	rm -rf $(VENV) build dist site *.egg-info results .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

$(BIN)/python:
	@[ -n "$(PYTHON)" ] || { echo "No Python from 3.10 on that runs and has" \
		"venv was found: make PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(FOR_DEMO): $(NEEDED) | $(BIN)/python
	@echo "Installing unispeech_sb into $(VENV): some minutes, once."
	@$(INSTALL) --editable '.[demo]'
	@rm -f $(STAMPS)-*
	@touch $@

$(FOR_DOCS): $(NEEDED) | $(BIN)/python
	@echo "Installing unispeech_sb and MkDocs into $(VENV): some minutes, once."
	@$(INSTALL) --editable '.[docs]'
	@rm -f $(STAMPS)-*
	@touch $@

# What the tests need includes what demo and docs need. KenLM has to be compiled.
$(FOR_TEST): $(NEEDED) | $(BIN)/python
	@echo "Installing unispeech_sb and its tests into $(VENV): some minutes, once."
	@$(INSTALL) --editable '.[demo,test]'
	@$(INSTALL) --editable '.[lm]' 2>$(VENV)/kenlm.log || echo "KenLM could not" \
		"be compiled, its tests are skipped: see $(VENV)/kenlm.log."
	@rm -f $(STAMPS)-*
	@touch $(FOR_DEMO) $(FOR_DOCS) $@
