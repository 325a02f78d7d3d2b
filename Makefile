# What there is to type; `make` alone prints this list. Works with GNU make 3.81 and later.
#   PYTHON=python3.12   the Python to make .venv with (3.11 to 3.13; found by itself otherwise)
#   TORCH_INDEX=https://download.pytorch.org/whl/cpu   takes torch alone from there, without CUDA
#   SEEDS="6 7"         the seeds of `make seeds`
#   LAB=4.6.6           the version of JupyterLab that `make lab` installs
#   MNIST=folder        your own copy of MNIST, for `make full`
#   DASK=tcp://…        a Dask scheduler, whose workers do the work of `make full`
#   ANYWAY=1            makes the supplement in spite of what speaks against it
#   COUNT=16 SEED=1 ROOMS="risk flow"   how many faults `make mutants` plants, which, and where

.DEFAULT_GOAL := help
.PHONY: help env book pages lab supplement test check seeds refresh full benchmarks mutants drills clean

RUN = .venv/bin/python -m

# One thread for each kernel and one hash seed: chapters run side by side, and give the same bytes each time.
export OMP_NUM_THREADS = 1
export OPENBLAS_NUM_THREADS = 1
export MKL_NUM_THREADS = 1
export VECLIB_MAXIMUM_THREADS = 1
export PYTHONHASHSEED = 0
export JUPYTER_PREFER_ENV_PATH = 1
export JUPYTER_PLATFORM_DIRS = 1

# This folder's code, and nobody's settings: whoever runs them, the chapters give the same.
export PYTHONPATH = $(CURDIR)
export IPYTHONDIR = $(CURDIR)/_build/ipython
export MPLCONFIGDIR = $(CURDIR)/_build/matplotlib
unexport JUPYTER_PATH MPLBACKEND PYTHONOPTIMIZE PYTHONSTARTUP PYTHONWARNINGS

SEEDS = 1 2 3 4 5
LAB = 4.6.6
COUNT = 320
SEED = 0
ROOMS =

help:
	@echo "make book        execute the chapters that changed and build the pages"
	@echo "make pages       build the pages from the stored outputs, executing nothing, in a minute"
	@echo "make lab         open the chapters in JupyterLab, which is installed the first time"
	@echo "make supplement  the folder to deposit, from a commit that make book has built: PDF, site, notebooks"
	@echo "make test        run every test, after make check"
	@echo "make check       formatting, lint, and the contracts between the rooms"
	@echo "make seeds       run every chapter with five other seeds, which takes long"
	@echo "make refresh     execute every chapter afresh and store its outputs in book/"
	@echo "make full        compute the stored tables that are missing: five hours for all, kept as they come"
	@echo "make benchmarks  time the works beside other libraries and store the ratios; ten minutes, alone"
	@echo "make drills      move, copy, lock and interrupt checkouts; 20,000 removals; the supplement twice"
	@echo "make mutants     plant 320 faults in copies of ifcore; say which ones no test finds (half an hour)"
	@echo "make clean       remove _build/ and .venv/"

book: env
	$(RUN) ifbook.chapters book

pages: env
	$(RUN) ifbook.chapters pages

# JupyterLab in an environment of its own: the pins stay few, and its kernel is that of .venv.
lab: env
	test -x _build/lab/bin/jupyter-lab || { \
	  $(RUN) venv --clear _build/lab && \
	  _build/lab/bin/pip install --quiet --disable-pip-version-check jupyterlab==$(LAB); }
	JUPYTER_PATH="$$PWD/_build/lab/share/jupyter" $(RUN) ipykernel install --prefix _build/lab
	_build/lab/bin/jupyter-lab --notebook-dir book

supplement: env
	$(RUN) ifbook.supplement $(if $(ANYWAY),--anyway)

refresh: env
	$(RUN) ifbook.chapters refresh

check: env
	$(RUN) ruff format --check --quiet .
	$(RUN) ruff check --quiet .
	.venv/bin/python -c "from importlinter.cli import lint_imports_command as lint; lint()" --no-logo

# The stored chapters are compared from a copy: executing them writes figures beside them.
test: check
	rm -rf _build/stored
	mkdir -p _build
	cp -R book _build/stored
	$(RUN) pytest -rs -n auto --dist loadscope --nbval --nbval-current-env tests _build/stored

seeds: env
	SEEDS="$(SEEDS)" $(RUN) pytest -n auto -k another_seed tests/book/test_chapters.py

full: env
	$(RUN) ifbook.decomposition $(if $(MNIST),--mnist "$(MNIST)") $(if $(DASK),--dask "$(DASK)")

benchmarks: env
	PYTHONPATH="$$PWD:$$PWD/tests" $(RUN) benchmarks.run

drills: env
	$(RUN) pytest tests/drills/checkouts.py tests/drills/removals.py tests/drills/supplements.py

mutants: env
	.venv/bin/python tests/mutants/run.py --count $(COUNT) --seed $(SEED) $(ROOMS)

clean:
	rm -rf _build .venv

# The environment, made anew where the pins or the place of this folder changed.
env:
	@python="$(PYTHON)"; \
	for name in .venv/bin/python python3 python3.13 python3.12 python3.11 python; do \
	  test -n "$$python" && break; \
	  $$name -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && python=$$name; \
	done; \
	test -n "$$python" || { echo "No Python 3.11, 3.12 or 3.13 found. Install one, or say make PYTHON=/path/to/python."; exit 1; }; \
	"$$python" -m ifbook.environment $(if $(TORCH_INDEX),--torch-index "$(TORCH_INDEX)")
