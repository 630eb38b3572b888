# `make lab` and `make test` do all the set-up on a fresh machine. `make help` lists the rest.

VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin

# hnswlib is compiled on installation: without a C++ compiler everything else is installed, and the doctor says so.
EXTRAS := $(shell command -v c++ >/dev/null 2>&1 && echo all || echo most)
STAMP := $(VENV)/.installed-$(EXTRAS)

LAB_ARGS ?=
PYTEST_ARGS ?=
# Tests run in as many processes as there are cores, four at most; JOBS=0 runs them in one.
JOBS ?= auto
PYTEST := $(BIN)/python -m pytest -n $(JOBS) --maxprocesses 4 --dist loadfile
DAY ?=
SUBMISSIONS ?=
BOOK_ARGS ?=

# What computes with torch and could hang on how a CPU rounds.
ROUNDING := tests/model/test_moe.py tests/model/test_layers.py tests/model/test_dense_cache.py \
	tests/model/test_agrees_with_transformers.py tests/kernels/test_reference.py tests/lessons/test_checks_day2.py \
	tests/engine/test_paged_equals_dense.py tests/engine/test_engine.py tests/engine/test_sampler.py \
	tests/engine/test_filters.py tests/engine/test_logprobs.py tests/engine/test_logits_processors.py \
	tests/parallel/test_engine_on_ranks.py \
	tests/engine/test_parity.py::test_greedy_tokens_equal_those_of_transformers_but_for_near_ties

.DEFAULT_GOAL := help
.PHONY: help lab test rounding test-all grade gate mutate bench book book-serve lint format setup constraints doctor

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { \
		echo "This needs Python 3.11, 3.12 or 3.13; $(PYTHON) is another. Name one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { \
		rm -rf $(VENV); echo "No venv could be made. On Debian or Ubuntu: sudo apt install python3-venv" >&2; exit 1; }
	$(BIN)/python -m pip install -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@

setup: $(STAMP) ## make .venv and install everything (the other targets do it where needed)

lab: $(STAMP) ## open the notebooks in JupyterLab (LAB_ARGS="--no-browser --port 8899")
	$(BIN)/tinyllm lab $(LAB_ARGS)

ifdef DAY
test: $(STAMP)
	$(PYTEST) --day $(DAY) $(PYTEST_ARGS)
else
test: lint rounding ## lint, and run every test but the slow ones and those for a GPU (DAY=2: one day's tests alone)
	$(PYTEST) $(PYTEST_ARGS)
endif

rounding: $(STAMP) ## run a minute of tests as on a CPU without AVX, which rounds otherwise (part of `test`)
	ATEN_CPU_CAPABILITY=default $(PYTEST) $(ROUNDING)

test-all: lint rounding ## lint, and run every test, the slow ones too
	$(PYTEST) -m "not gpu" $(PYTEST_ARGS)

grade: $(STAMP) ## grade the example class, or real submissions (SUBMISSIONS=dir)
	$(BIN)/grader grade $(SUBMISSIONS)

gate: $(STAMP) ## prove that each exercise's checks tell right from wrong
	$(BIN)/grader gate

mutate: $(STAMP) ## prove that no small change to a right answer passes its check; many minutes
	$(BIN)/grader gate --mutate

bench: $(STAMP) ## measure, on the GPU too where there is one, and write benchmarks/results; hours, on a machine with nothing else to do
	$(BIN)/python -m benchmarks.scheduler_overhead
	$(BIN)/python -m benchmarks.throughput --profile
	$(BIN)/python -m benchmarks.kv_memory
	$(BIN)/python -m benchmarks.experts
	$(BIN)/python -m benchmarks.grading
	@if $(BIN)/python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then \
		$(BIN)/python -m benchmarks.kernels && $(BIN)/python -m benchmarks.decode_graphs; \
	else echo "No NVIDIA GPU that torch can use: kernels and decode_graphs were not measured."; fi

book: $(STAMP) ## build the site (for publishing: BOOK_ARGS="--address URL --repository URL")
	$(BIN)/python -m book.build $(BOOK_ARGS)

book-serve: $(STAMP) ## build the site, serve it here, and build again when a source changes
	$(BIN)/python -m book.build --serve $(BOOK_ARGS)

lint: $(STAMP) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP) ## lay out the code with ruff
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

doctor: $(STAMP) ## say what this machine can do
	$(BIN)/tinyllm doctor

constraints: $(STAMP) ## write the installed versions down in constraints.txt
	@{ sed -n -E '/^(#|cuda-|nvidia-)/p' constraints.txt; \
	   $(BIN)/pip freeze --all --exclude-editable | grep -v -E '^(pip|wheel|cuda-.*|nvidia-.*)==' | sed 's/+[a-z0-9]*$$//'; } > constraints.new
	@mv constraints.new constraints.txt
