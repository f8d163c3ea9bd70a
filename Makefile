# make demo and make test need Python >= 3.10 and make; the rest is installed.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
METADATA := setup.cfg pyproject.toml

.PHONY: demo test clean

demo: $(VENV)/installed-demo
	@$(BIN)/python -m unispeech_sb.cli demo

test: $(VENV)/installed-test
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

clean:
	rm -rf $(VENV) build dist *.egg-info results .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -m venv $(VENV)

$(VENV)/installed-demo: $(METADATA) | $(BIN)/python
	@echo "Installing unispeech_sb into $(VENV): some minutes, once."
	@$(BIN)/python -m pip install -qq --editable '.[demo]'
	@touch $@

# What the tests need includes what the demo needs.
$(VENV)/installed-test: $(METADATA) | $(BIN)/python
	@echo "Installing unispeech_sb and its tests into $(VENV): some minutes, once."
	@$(BIN)/python -m pip install -qq --editable '.[demo,test]'
	@touch $(VENV)/installed-demo $@
