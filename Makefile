# `make demo` and `make test` each set up all they need on a fresh machine with Python 3.11+ and pip.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO := build/demo

.PHONY: demo notebook test slow bench gpu gpu-wheels faults fuzz lint types docs site clean install install-dev

# One stamp per set of requirements: while pyproject.toml is unchanged, nothing is installed again.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

install: $(VENV)/.installed

install-dev: $(VENV)/.installed-dev

# The main job on the built-in suite: two models, cached embeddings, MLP and kNN probes, a leaderboard. No download.
demo: install
	$(BIN)/uwbench run -m logmel -m mfcc -s mini --cache $(DEMO)/cache --results $(DEMO)/results
	$(BIN)/uwbench leaderboard -s mini --results $(DEMO)/results --format csv --output $(DEMO)/leaderboard.csv
	$(BIN)/uwbench leaderboard -s mini --results $(DEMO)/results --format md --output $(DEMO)/leaderboard.md
	$(BIN)/uwbench leaderboard -s mini --results $(DEMO)/results --format html --output $(DEMO)/leaderboard.html

# Runs the notebook and keeps its outputs in it.
notebook: install-dev
	UWBENCH_CACHE=$(CURDIR)/$(DEMO)/cache UWBENCH_RESULTS=$(CURDIR)/$(DEMO)/notebook \
	$(BIN)/python -c 'import sys, nbclient, nbformat; name = sys.argv[1]; notebook = nbformat.read(name, 4); \
	nbclient.NotebookClient(notebook, record_timing=False).execute(); nbformat.write(notebook, name)' examples/quickstart.ipynb

# One worker per core and one more, since tests wait for the disk and for other processes, with one thread each. A
# worker takes a whole file at a time, so that fixtures of a file are made once. `make slow` runs the tests that are
# marked slow, from eight seconds of a core on; CI runs both. Both print their 15 slowest tests and fixtures.
WORKERS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses=$(WORKERS) --maxprocesses=8 --dist=loadfile --no-loadscope-reorder --durations=15

test: install-dev
	$(PYTEST) -m 'not slow and not gpu'

slow: install-dev
	$(PYTEST) -m slow

# Speed and memory: some minutes on an idle machine. benchmarks/README.md explains each benchmark.
bench: install
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/store.py --quick
	$(BIN)/python benchmarks/memory.py --quick
	$(BIN)/python benchmarks/extraction.py --quick
	$(BIN)/python benchmarks/probing.py
	$(BIN)/python benchmarks/paper.py

# All that needs a GPU, in eight minutes (benchmarks/README.md); DEVICE=cpu runs tiny shapes. A GPU machine has a torch of
# its own and no network: its Python runs this, with the packages that `make gpu-wheels` collected elsewhere.
DEVICE ?= cuda
GPU_PACKAGES := build/gpu-packages.tar.xz

ifeq ($(DEVICE),cpu)
gpu: install-dev
	$(BIN)/python benchmarks/gpu.py --device cpu
else
gpu:
	$(PYTHON) benchmarks/gpu.py --device $(DEVICE) $(if $(wildcard $(GPU_PACKAGES)),--packages $(GPU_PACKAGES))
endif

gpu-wheels: install
	$(BIN)/python benchmarks/gpu_wheels.py $(GPU_PACKAGES)

# Kills, full disks, damaged files, many processes: each ends as an undisturbed run does or in a clear error
# (docs/faults.md).
faults: install
	$(BIN)/python tests/faults/run_faults.py

# A million damaged or made-up inputs for the readers of files: a quarter of an hour (docs/faults.md).
fuzz: install-dev
	$(BIN)/python tests/fuzz/run_fuzz.py

lint: install-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install-dev
	$(BIN)/pyright --pythonpath $(BIN)/python

# Regenerates the generated pages of docs/; a test fails if they are out of date.
docs: install-dev
	$(BIN)/python docs/generate.py

# The documentation as pages, in build/site; broken links and anchors are errors. They load nothing from elsewhere. For
# the search: python3 -m http.server -d build/site
$(VENV)/.installed-docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	touch $@

site: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet
	@echo build/site/index.html

clean:
	rm -rf $(VENV) build dist
