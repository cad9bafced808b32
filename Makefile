# Two commands set everything up on a fresh machine with Python 3.11+ and pip: make demo, make test.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO := build/demo

.PHONY: demo test bench faults fuzz lint types docs clean install install-dev

# A stamp a set of requirements: an unchanged pyproject installs nothing again.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

install: $(VENV)/.installed

install-dev: $(VENV)/.installed-dev

# The main job on the built-in suite, no download of data: two models, cached embeddings, probes, kNN, a leaderboard.
demo: install
	$(BIN)/uwbench run -m logmel -m mfcc -s mini --cache $(DEMO)/cache --results $(DEMO)/results
	$(BIN)/uwbench leaderboard -s mini --results $(DEMO)/results --format csv --output $(DEMO)/leaderboard.csv
	$(BIN)/uwbench leaderboard -s mini --results $(DEMO)/results --format md --output $(DEMO)/leaderboard.md
	$(BIN)/uwbench leaderboard -s mini --results $(DEMO)/results --format html --output $(DEMO)/leaderboard.html

# A file of tests at a time on each core, one thread each.
test: install-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses=logical --maxprocesses=8 --dist=loadfile --no-loadscope-reorder

# Speed and memory, some minutes on a machine that does nothing else; benchmarks/README.md says what each shows.
bench: install
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/store.py --quick
	$(BIN)/python benchmarks/memory.py --quick
	$(BIN)/python benchmarks/extraction.py --quick
	$(BIN)/python benchmarks/probes.py
	$(BIN)/python benchmarks/paper.py

# Kills, full disks, damage, crowds: each ends as an undisturbed run or in a clear error; docs/faults.md explains.
faults: install
	$(BIN)/python tests/faults/run_faults.py

# A million inputs for every reader of files, some minutes; docs/faults.md has the table.
fuzz: install-dev
	$(BIN)/python tests/fuzz/run_fuzz.py

lint: install-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install-dev
	$(BIN)/pyright --pythonpath $(BIN)/python

# Regenerates what is generated in docs/; a test fails where it differs.
docs: install-dev
	$(BIN)/python docs/generate.py

clean:
	rm -rf $(VENV) build dist
