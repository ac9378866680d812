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

# The decoder from blank weights to preference tuning.  DATA is the folder of training text (docs/training-log.md).
# SIZE=gpu: 76 M parameters, for an hour of one large GPU; cpu: 9 M, for an afternoon of two cores; try: minutes, to see
# that everything works.  Interrupted, it goes on where it was when given again.
SIZE ?= gpu
RUN := runs/$(SIZE)
TOKENS_try := --limit 200
GROUNDED_cpu := --words 60 --room 160
GROUNDED_try := --words 40 --room 120 --lore 20 --share 0.005
PRETRAIN_gpu := --preset cirilla --batch 64 --length 1024 --accumulate 2 --steps 7000 --window 100 --eval-rows 256 --save-every 1000
PRETRAIN_cpu := --preset cirilla-mini --batch 16 --length 256 --steps 3000
PRETRAIN_try := --preset cirilla-tiny --batch 4 --length 64 --steps 40 --eval-rows 4
TUNE_gpu := --length 1024 --batch 32 --steps 2500 --copy-steps 100 --held-out 500
TUNE_cpu := --length 512 --pack --batch 16 --steps 1500 --copy-steps 150 --held-out 400 --decay 0.4 --lr 1.5e-3
TUNE_try := --length 256 --batch 4 --steps 20 --copy-steps 5 --held-out 10
SAMPLE_gpu := --prompts 4000 --together 32
SAMPLE_cpu := --prompts 1000 --samples 4
SAMPLE_try := --prompts 20 --samples 4
PREFER_gpu := --batch 16
PREFER_cpu := --length 512
PREFER_try := --length 256 --held-out 2 --batch 2

.PHONY: cirilla
cirilla: $(RUN)/tokens/mix.json $(RUN)/grounded.jsonl ## train the decoder: make cirilla DATA=… [SIZE=gpu|cpu|try]
	$(BIN)/python -m lm.pretrain --tokens $(RUN)/tokens --out $(RUN)/pretrained $(PRETRAIN_$(SIZE))
	$(BIN)/python -m lm.tune --data $(RUN)/grounded.jsonl --start $(RUN)/pretrained/model --out $(RUN)/tuned $(TUNE_$(SIZE))
	$(BIN)/python -m lm.sample --model $(RUN)/tuned/model --data $(RUN)/grounded.jsonl --out $(RUN)/samples.jsonl $(SAMPLE_$(SIZE))
	$(BIN)/python -m benchmarks.preferences --samples $(RUN)/samples.jsonl --out $(RUN)/preferences.jsonl
	$(BIN)/python -m lm.prefer --pairs $(RUN)/preferences.jsonl --start $(RUN)/tuned/model --out $(RUN)/preferred $(PREFER_$(SIZE))

$(RUN)/tokens/mix.json: $(VENV)/dev.stamp
	$(BIN)/python -m lm.data --data $(DATA) --out $(RUN)/tokens $(TOKENS_$(SIZE))

$(RUN)/grounded.jsonl: $(if $(filter try,$(SIZE)),$(VENV)/dev.stamp,$(RUN)/groups.jsonl)
	$(BIN)/python -m corpus.grounded --data $(DATA) --out $@ $(GROUNDED_$(SIZE)) $(addprefix --groups ,$(filter %.jsonl,$<))

# The other passages of a question are those that the search really brings: for that there must be an index.
$(RUN)/groups.jsonl: $(VENV)/dev.stamp
	$(BIN)/python app.py --ingest --codex-only --data $(RUN)/index
	$(BIN)/python -m retrieval.candidates --questions corpus/questions/train.jsonl --data $(RUN)/index --out $@

requirements: ## write requirements.txt, which Spaces installs, from pyproject.toml
	$(PYTHON) -c 'import tomllib; d = tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"]; \
	d.sort(key=lambda r: not r.startswith("torch==")); \
	print("# Written by `make requirements` from pyproject.toml; torch first, so that nothing else picks its build.", *d, sep="\n")' \
	> requirements.txt

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
