# make setup   a virtual environment in .venv with the tested versions
# make demo    the whole pipeline on open data: sample, features, training, table, sweep, picture
# make test    all tests, on the CPU
# make lint    formatter, linter, type checker
# make bench   the benchmarks of speed; tables on the terminal, figures in benchmarks/out/
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
RUN := $(VENV)/bin/python
INSTALL := $(RUN) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: setup demo test lint bench
setup: $(VENV)/ready

# torch first: installed in one go with the rest, pip may choose another build of it.
$(VENV)/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' \
		|| { echo "error: glot needs Python 3.10 to 3.13; say which with make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@echo "making $(VENV) with $(PYTHON) (downloads about 3 GB, a few minutes)"
	@started=$$(date +%s) && $(PYTHON) -m venv $(VENV) && $(INSTALL) torch torchvision && \
		$(INSTALL) --editable '.[dev]' && echo $$(($$(date +%s) - started)) > $(VENV)/setup_seconds
	@touch $@

demo: setup
	@$(RUN) -m pipelines.demo --out runs/demo

test: setup
	@$(RUN) -m pytest -q -m "not slow and not alone" --numprocesses 2 --dist loadfile
	@$(RUN) -m pytest -q -m alone
	@$(RUN) -m pytest -q -m "slow and not alone" --numprocesses 2 --dist loadfile

lint: setup
	@$(RUN) -m ruff format --check .
	@$(RUN) -m ruff check .
	@$(RUN) -m mypy

bench: setup
	@set -e; for name in body_joints train_step evaluate feeder extract probe scale; do echo "== $$name"; $(RUN) benchmarks/$$name.py; done
