# Everything runs from a clean checkout with Python 3.11 or later; `make setup` needs the package index once.
VENV    := .venv
PYTHON  ?= python3
BIN     := $(VENV)/bin
GOLDENS ?= tests/goldens
DATA    ?=
STAMP   := $(VENV)/.installed

.PHONY: setup demo test test-all lint format docs bench lock wheel clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

demo: setup  ## Generate pictures, train, evaluate, infer, mine, report.
	$(BIN)/ymir-tmi demo

test: setup  ## What must pass before a change is merged.
	$(BIN)/pytest -m 'not slow' --numprocesses 2

test-all: setup  ## The slow tests too. GOLDENS=DIR takes reference numbers from another folder.
	YMIR_TMI_GOLDENS=$(abspath $(GOLDENS)) $(BIN)/pytest --numprocesses 2

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: setup  ## Pages that are made from the code.
	$(BIN)/python -m ymir_tmi.config.describe > docs/settings.md
	$(BIN)/python -m ymir_tmi.weights.overview > docs/models.md
	$(BIN)/python docs/images/draw_rotated_boxes.py
	$(BIN)/python -m ymir_tmi.ymir.image_docs docs/images

bench: setup  ## Benchmarks; DATA=DIR is a folder of data sets, see benchmarks/README.md.
	$(BIN)/python benchmarks/run_all.py --data '$(DATA)'

wheel: setup
	$(BIN)/python -m build --wheel

lock: setup  ## Write the installed versions to constraints.txt.
	(echo '# Every version that the tests pass with; made by: make lock'; $(BIN)/pip freeze --exclude-editable | sort -f) > constraints.txt

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache
