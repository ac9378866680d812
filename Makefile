# `make chat` talks, `make test` checks.  Both work on a machine that has Python 3.11 or later and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Where pip finds a build of torch for your machine.  Left empty, pip's default index decides; on a Linux computer
# without an NVIDIA card, point it at PyTorch's CPU builds to save some gigabytes: make chat TORCH="--index-url …"
TORCH ?=
TORCH_VERSION := $(shell sed -n 's/.*"\(torch==[0-9.]*\)".*/\1/p' pyproject.toml)

.PHONY: chat test check bench requirements clean
.DELETE_ON_ERROR:

chat: $(VENV)/run.stamp ## install, build the index if there is none, serve the chat
	$(BIN)/python app.py

test: $(VENV)/dev.stamp ## everything that must hold
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy app.py  # apart from the package of the same name
	$(BIN)/python -m corpus.check --errors-only
	$(BIN)/python -m corpus.question_sets check --strict --errors-only
	$(BIN)/python -m pytest

# Half an hour on two cores.  The peers are skipped, and said to be, unless .[bench] is installed; BENCH="--quick", …
bench: $(VENV)/dev.stamp ## answers and retrieval, beside peers and bounds, into RESULTS.md
	$(BIN)/python -m benchmarks.results $(BENCH)

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit("Cirilla needs Python 3.11 or later") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

# torch first and by itself: any other package that asks for it could bring a build with gigabytes of CUDA.
$(VENV)/torch.stamp: $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH) $(TORCH_VERSION)
	touch $@

$(VENV)/run.stamp: $(VENV)/torch.stamp requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/dev.stamp: $(VENV)/run.stamp pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[train,instruct,dev]'
	touch $@

requirements: ## write requirements.txt, which Spaces installs, from pyproject.toml
	$(PYTHON) -c 'import tomllib; d = tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"]; \
	d.sort(key=lambda r: not r.startswith("torch==")); \
	print("# Written by `make requirements` from pyproject.toml; torch first, so that nothing else picks its build.", *d, sep="\n")' \
	> requirements.txt

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
