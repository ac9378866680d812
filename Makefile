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

# The decoder from blank weights to preference tuning, as docs/cirilla.md tells it.  DATA is the folder of training
# text, which does not ship: lm/data.py and corpus/grounded.py name its files.  SIZE=gpu: 76 M parameters, for one large
# GPU and half an hour; cpu: 9 M, for an afternoon of two cores (like the weights that ship, though not step by step
# their recipe: docs/training-log.md has that); try: minutes, to see that everything works.  Interrupted, a target goes
# on where it was when given again; with MINUTES, each of its trainings stops after so many by itself, and the target
# with it.  Sampling stops, too, and what follows takes the samples that there are: give its target again before.
SIZE ?= gpu
MINUTES ?=
# The training targets need torch, numpy, tokenizers and safetensors and nothing else: PYTHON3=python3 on another
# computer.
PYTHON3 ?= $(BIN)/python
RUN := runs/$(SIZE)
ifneq ($(filter cirilla%,$(MAKECMDGOALS)),)
ifeq ($(filter $(SIZE),gpu cpu try),)
$(error SIZE is gpu, cpu or try, not “$(SIZE)”)
endif
endif
NEEDS_DATA = test -d "$(DATA)" || { echo 'make cirilla-data DATA=FOLDER: the folder of training text (see lm/data.py)'; exit 2; }
FINISHED = test -d $(1)/model || { echo '$(1) is not finished: the same command goes on with it'; exit 3; }
SLICE = $(addprefix --minutes ,$(MINUTES))

TOKENS_try := --limit 200
# On a GPU rows are as long as what the model reads in use: five whole passages.  A quarter of them, some 40,000, is
# more than 1,200 steps get to see, and what can still be carried to another computer.
GROUNDED_gpu := --words 230 --room 1150 --share 0.25
GROUNDED_cpu := --words 60 --room 160
GROUNDED_try := --words 40 --room 120 --lore 20 --share 0.005
# 131,072 tokens a step, 393 M in all: some nine minutes at 40 % MFU.  Rows of 2,048 cost a tenth more than rows of
# 1,024 (565 against 510 MFLOP a token), but else tuning would be the first to show the model positions beyond 1,024.
PRETRAIN_gpu := --preset cirilla --batch 32 --length 2048 --accumulate 2 --steps 3000 --window 100 --eval-rows 128 --save-every 1000
PRETRAIN_cpu := --preset cirilla-mini --batch 16 --length 256 --steps 3000
PRETRAIN_try := --preset cirilla-tiny --batch 4 --length 64 --steps 40 --eval-rows 4
TUNE_gpu := --length 2048 --batch 16 --steps 1200 --copy-steps 100 --held-out 500 --eval-every 400
TUNE_cpu := --length 512 --pack --batch 16 --steps 1500 --copy-steps 150 --held-out 400 --decay 0.4 --lr 1.5e-3
TUNE_try := --length 256 --batch 4 --steps 20 --copy-steps 5 --held-out 10
SAMPLE_gpu := --prompts 2000 --together 32
SAMPLE_cpu := --prompts 1000 --samples 4
SAMPLE_try := --prompts 20 --samples 4
PREFER_gpu := --length 2048
PREFER_cpu := --length 512
PREFER_try := --length 256 --held-out 2 --batch 2

.PHONY: cirilla cirilla-data cirilla-train cirilla-sample cirilla-pairs cirilla-prefer
cirilla: cirilla-data ## train the decoder, all of the five below: make cirilla DATA=… [SIZE=gpu|cpu|try]
	$(MAKE) cirilla-train
	$(MAKE) cirilla-sample
	$(MAKE) cirilla-pairs
	$(MAKE) cirilla-prefer

cirilla-data: $(RUN)/tokens/mix.json $(RUN)/grounded.jsonl ## text and conversations to learn from, on a CPU

cirilla-train: ## pretraining, tuning and int8 weights, on a GPU: [SIZE=gpu] [PYTHON3=python3] [MINUTES=8]
	$(PYTHON3) -m lm.pretrain --tokens $(RUN)/tokens --out $(RUN)/pretrained $(PRETRAIN_$(SIZE)) $(SLICE)
	@$(call FINISHED,$(RUN)/pretrained)
	$(PYTHON3) -m lm.tune --data $(RUN)/grounded.jsonl --start $(RUN)/pretrained/model --out $(RUN)/tuned $(TUNE_$(SIZE)) $(SLICE)
	@$(call FINISHED,$(RUN)/tuned)
	$(PYTHON3) -m lm.quantize --from $(RUN)/tuned/model --out $(RUN)/tuned/int8

cirilla-sample: ## answers to prefer from, on a GPU, as cirilla-train
	$(PYTHON3) -m lm.sample --model $(RUN)/tuned/model --data $(RUN)/grounded.jsonl --out $(RUN)/samples.jsonl $(SAMPLE_$(SIZE)) $(SLICE)

cirilla-pairs: | $(VENV)/dev.stamp ## pairs of a better and a worse answer out of them, on a CPU
	$(BIN)/python -m benchmarks.preferences --samples $(RUN)/samples.jsonl --out $(RUN)/preferences.jsonl

cirilla-prefer: ## preference tuning and int8 weights, on a GPU, as cirilla-train
	$(PYTHON3) -m lm.prefer --pairs $(RUN)/preferences.jsonl --start $(RUN)/tuned/model --out $(RUN)/preferred $(PREFER_$(SIZE)) $(SLICE)
	@$(call FINISHED,$(RUN)/preferred)
	$(PYTHON3) -m lm.quantize --from $(RUN)/preferred/model --out $(RUN)/preferred/int8

# What a newer stamp means to the packages means nothing to the data: order only.
$(RUN)/tokens/mix.json: | $(VENV)/dev.stamp
	@$(NEEDS_DATA)
	$(BIN)/python -m lm.data --data $(DATA) --out $(RUN)/tokens $(TOKENS_$(SIZE))

FOUND := $(if $(filter-out try,$(SIZE)),$(RUN)/groups.jsonl $(RUN)/groups-wiki.jsonl)
$(RUN)/grounded.jsonl: $(FOUND) | $(VENV)/dev.stamp
	@$(NEEDS_DATA)
	$(BIN)/python -m corpus.grounded --data $(DATA) --out $@ $(GROUNDED_$(SIZE)) $(if $(FOUND),--groups $(FOUND))

# The other passages of a question are those that the search really brings: for that there must be an index.
$(RUN)/groups.jsonl: | $(VENV)/dev.stamp
	$(BIN)/python app.py --ingest --codex-only --data $(RUN)/index
	$(BIN)/python -m retrieval.candidates --questions corpus/questions/train.jsonl --data $(RUN)/index --out $@

$(RUN)/groups-wiki.jsonl: | $(VENV)/dev.stamp
	@$(NEEDS_DATA)
	$(BIN)/python -m retrieval.candidates --wiki $(DATA)/witcher/wiki_characters.jsonl.zst --questions corpus/questions/wiki-train.jsonl --out $@

requirements: ## write requirements.txt, which Spaces installs, from pyproject.toml
	$(PYTHON) -c 'import tomllib; d = tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"]; \
	d.sort(key=lambda r: not r.startswith("torch==")); \
	print("# Written by `make requirements` from pyproject.toml; torch first, so that nothing else picks its build.", *d, sep="\n")' \
	> requirements.txt

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
