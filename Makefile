# Every target sets up what it needs in its own virtual environment, once. `make help` names them.
#
# PYTHON       the Python to build on, 3.11 or newer
# TORCH        which PyTorch; this one has wheels for processors without a GPU under its plain name
# TORCH_FLAGS  passed to pip for it, such as the address of PyTorch's own index for a CPU or CUDA build
# TRITON       which Triton, for make triton; PyTorch for CUDA brings its own
# WORKERS      processes that run the tests; auto is one more than there are processors, four at most

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
TORCH ?= torch==2.13.0
TORCH_FLAGS ?=
TRITON ?= triton==3.9.0
VENV ?= .venv
WORKERS ?= auto
ARGS ?=

PY := $(VENV)/bin/python
PIP := $(PY) -m pip
RUN_SIZE := about 0.4 GB
DEV_SIZE := about 2 GB, more with CUDA
TRITON_SIZE := 1 GB more
CLIENTS_SIZE := about 1 GB
RUN := $(VENV)/.ready-to-run
DEV := $(VENV)/.ready-to-test

TRITON_FOLDER := $(VENV)/triton
CLIENTS := $(VENV)/clients
KERNELS := $(VENV)/.ready-kernels
KERNEL_FILES := $(wildcard kernels/*.py kernels/*.toml kernels/cpp/* kernels/src/*/*.py)

.PHONY: help demo test triton clients lint bench mutants wheels clean

help:
	@echo "make demo     transcribe the recordings in examples/ with the model that ships with kiku"
	@echo "make test     the tests; make test ARGS='tests/text -x' for some of them,"
	@echo "              make test WORKERS=0 in one process, where -s and --pdb work"
	@echo "make triton   the tests of the kernels for GPUs, by Triton's interpreter and compiler: no GPU is needed"
	@echo "make clients  kiku serve with LiveKit's, Pipecat's and Kyutai's clients, and under granian"
	@echo "make lint     ruff, pyright, import-linter"
	@echo "make bench    kiku beside transformers and moshi, half an hour; figures go to benchmarks/results/"
	@echo "make mutants  how many small mistakes the tests notice, and which they miss, a quarter of an hour;"
	@echo "              make mutants ARGS='src/kiku/text/words.py --most 50' for some of them"
	@echo "make wheels   the wheels of kiku-kernels for Linux, macOS and Windows, into dist/"
	@echo "make clean    remove the virtual environment"
	@echo
	@echo "PYTHON=python3.12 builds on that one, TORCH and TORCH_FLAGS choose PyTorch (see the Makefile)."
	@echo "What is installed goes to $(VENV): $(RUN_SIZE) for demo, $(DEV_SIZE) for the others, $(TRITON_SIZE) for triton,"
	@echo "$(CLIENTS_SIZE) for clients."

demo: $(RUN)
	@echo "transcribing the recordings in examples/, a few seconds; the model is converted before that if it is new"
	$(PY) -m kiku transcribe examples --words

# Hundreds of short processes import kiku: it is compiled once, whatever the environment says.
test: $(DEV)
	PYTHONDONTWRITEBYTECODE= $(PY) -m pytest -n $(WORKERS) --maxprocesses 4 --dist worksteal $(ARGS)

# Triton lies apart from the other packages: where it can be imported, `make test` would run these
# tests, too, which take minutes.
triton: $(DEV) $(TRITON_FOLDER)
	PYTHONPATH=$(abspath $(TRITON_FOLDER)) $(PY) -m pytest tests/engine/test_triton.py $(ARGS)

# These clients want other versions of some packages than the rest of the tests.
clients: $(CLIENTS)/.ready
	$(CLIENTS)/bin/python -m pytest tests/serve_clients $(ARGS)

lint: $(DEV)
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(VENV)/bin/pyright
	$(VENV)/bin/lint-imports

bench: $(DEV)
	$(PY) benchmarks/peers.py $(ARGS)

mutants: $(DEV)
	$(PY) tools/mutants.py $(ARGS)

# The wheels of kiku-kernels for every system that it knows; only this one's can be run here.
wheels: $(PY)
	for target in linux-x86_64 linux-aarch64 macos-arm64 windows-x86_64; do \
		KIKU_KERNELS_TARGET=$$target $(PIP) wheel --quiet --no-deps -w dist ./kernels || exit 1; done

clean:
	rm -rf $(VENV)

$(PY):
	@test -n "$(PYTHON)" || { echo "kiku needs Python 3.11 or newer: make PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(KERNELS): $(KERNEL_FILES) | $(PY)
	@echo "building kiku-kernels, which fetches a compiler of 90 MB for it and throws it away: half a minute, once"
	$(PIP) install --quiet --force-reinstall --no-deps ./kernels
	@touch $@

$(RUN): pyproject.toml $(KERNELS) | $(PY)
	@echo "installing kiku and what it needs into $(VENV): $(RUN_SIZE), a minute or two, once"
	$(PIP) install --quiet -e .
	@touch $@

$(DEV): pyproject.toml $(RUN)
	@echo "installing PyTorch and the tools of developers into $(VENV): $(DEV_SIZE), some minutes, once"
	$(PIP) install --quiet $(TORCH_FLAGS) "$(TORCH)"
	$(PIP) install --quiet -e ".[dev]"
	$(PIP) install --quiet --no-deps "moshi==0.2.13" "sphn>=0.2,<0.3"
	@touch $@

$(TRITON_FOLDER): | $(PY)
	@echo "installing Triton into $@: $(TRITON_SIZE), a minute or two, once"
	$(PIP) install --quiet --no-deps --target $@.part "$(TRITON)"
	@mv $@.part $@

$(CLIENTS)/.ready: pyproject.toml $(KERNEL_FILES)
	@test -n "$(PYTHON)" || { echo "kiku needs Python 3.11 or newer: make PYTHON=/path/to/python" >&2; exit 1; }
	@echo "installing kiku and its clients into $(CLIENTS): $(CLIENTS_SIZE), some minutes, once"
	$(PYTHON) -m venv $(CLIENTS)
	$(CLIENTS)/bin/python -m pip install --quiet -e ".[clients]"
	@touch $@
