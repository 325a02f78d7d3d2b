# What there is to type; `make` alone prints this list. Works with GNU make 3.81 and later.
#   PYTHON=python3.12   the Python to make .venv with (3.11 to 3.13; found by itself otherwise)
#   SEEDS="6 7"         the seeds of `make seeds`
#   COUNT=16 SEED=1 ROOMS="risk flow"   how many faults `make mutants` plants, which, and where

.DEFAULT_GOAL := help
.PHONY: help book test check seeds refresh benchmarks mutants clean

ENV = .venv/.ready
BIN = .venv/bin

# One thread for each kernel and one hash seed: chapters run side by side, and give the same bytes each time.
export OMP_NUM_THREADS = 1
export OPENBLAS_NUM_THREADS = 1
export MKL_NUM_THREADS = 1
export VECLIB_MAXIMUM_THREADS = 1
export PYTHONHASHSEED = 0
export JUPYTER_PREFER_ENV_PATH = 1
export JUPYTER_PLATFORM_DIRS = 1

SEEDS = 1 2 3 4 5
COUNT = 320
SEED = 0
ROOMS =

help:
	@echo "make book        execute the chapters that changed and build the pages"
	@echo "make test        run every test, after make check"
	@echo "make check       formatting, lint, and the contracts between the rooms"
	@echo "make seeds       run every chapter with five other seeds, which takes long"
	@echo "make refresh     execute every chapter afresh and store its outputs in book/"
	@echo "make benchmarks  time the works that the book states ratios for"
	@echo "make mutants     plant 320 faults in copies of ifcore; say which ones no test finds (half an hour)"
	@echo "make clean       remove _build/ and .venv/"

book: $(ENV)
	$(BIN)/python -m ifbook.chapters book

refresh: $(ENV)
	$(BIN)/python -m ifbook.chapters refresh

check: $(ENV)
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/lint-imports --no-logo

# The stored chapters are compared from a copy: executing them writes figures beside them.
test: check
	rm -rf _build/stored
	mkdir -p _build
	cp -R book _build/stored
	$(BIN)/python -m pytest -n auto --dist loadscope --nbval --nbval-current-env tests _build/stored

seeds: $(ENV)
	SEEDS="$(SEEDS)" $(BIN)/python -m pytest -n auto -k another_seed tests/book/test_chapters.py

benchmarks: $(ENV)
	@for work in tests/benchmarks/w*.py; do echo $$work; $(BIN)/python $$work || exit 1; done

mutants: $(ENV)
	$(BIN)/python tests/mutants/run.py --count $(COUNT) --seed $(SEED) $(ROOMS)

clean:
	rm -rf _build .venv

$(ENV): requirements.txt constraints.txt pyproject.toml ifbook/pyproject.toml
	@python="$(PYTHON)"; \
	for name in python3 python3.13 python3.12 python3.11 python; do \
	  test -n "$$python" && break; \
	  $$name -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && python=$$name; \
	done; \
	test -n "$$python" || { echo "No Python 3.11, 3.12 or 3.13 found. Install one, or say make PYTHON=/path/to/python."; exit 1; }; \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "$$python is $$($$python --version 2>&1); the book needs Python 3.11, 3.12 or 3.13."; exit 1; }; \
	echo "making .venv with $$($$python --version)"; \
	$$python -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -c constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable . --editable ifbook
	touch $(ENV)
