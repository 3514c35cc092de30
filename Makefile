# Every target sets up what it needs in its own virtual environment, once.
#
#   make demo     transcribe the recordings in examples/ with the model that ships with kiku
#   make test     the tests; `make test ARGS="tests/text -x"` for some of them; `make test WORKERS=0`
#                 in one process, where -s and --pdb work
#   make lint     ruff, pyright, import-linter
#   make bench    kiku beside transformers and moshi, half an hour; figures go to benchmarks/results/
#   make mutants  how many small mistakes the tests notice, and which they miss; a quarter of an hour;
#                 `make mutants ARGS="src/kiku/text/words.py --most 50"` for some of them
#
# PYTHON       the Python to build on, 3.11 or newer
# TORCH        which PyTorch; this one has wheels for processors without a GPU under its plain name
# TORCH_FLAGS  passed to pip for it, such as the address of PyTorch's own index for a CPU or CUDA build
# WORKERS      processes that run the tests; auto is one for each processor, four at most

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
TORCH ?= torch==2.13.0
TORCH_FLAGS ?=
VENV ?= .venv
WORKERS ?= auto
ARGS ?=

PY := $(VENV)/bin/python
PIP := $(PY) -m pip
RUN := $(VENV)/.ready-to-run
DEV := $(VENV)/.ready-to-test

.PHONY: demo test lint bench mutants clean

demo: $(RUN)
	$(PY) -m kiku transcribe examples --words

test: $(DEV)
	$(PY) -m pytest -n $(WORKERS) --maxprocesses 4 --dist worksteal $(ARGS)

lint: $(DEV)
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(VENV)/bin/pyright
	$(VENV)/bin/lint-imports

bench: $(DEV)
	$(PY) benchmarks/peers.py $(ARGS)

mutants: $(DEV)
	$(PY) tools/mutants.py $(ARGS)

clean:
	rm -rf $(VENV)

$(PY):
	@test -n "$(PYTHON)" || { echo "kiku needs Python 3.11 or newer: make PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(RUN): pyproject.toml | $(PY)
	$(PIP) install --quiet -e .
	@touch $@

$(DEV): pyproject.toml $(RUN)
	$(PIP) install --quiet $(TORCH_FLAGS) "$(TORCH)"
	$(PIP) install --quiet -e ".[dev]"
	$(PIP) install --quiet --no-deps "moshi==0.2.13" "sphn>=0.2,<0.3"
	@touch $@
