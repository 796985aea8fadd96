# Everything a contributor types. `make train` and `make test` work as the very first command on a fresh clone.
# Written for GNU make 3.81, the one that macOS has.

VENV := .venv
PY := $(VENV)/bin/python
# Bytecode is compiled when a module is first imported, which is quicker than compiling everything now.
PIP_INSTALL := $(PY) -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt
# The extra for NVIDIA's back end, where its driver is present; `make CUDA= …` does without.
CUDA := $(shell { if command -v nvidia-smi || test -e /proc/driver/nvidia/version; then echo cuda; fi | tail -n 1 | grep -x cuda; } 2>/dev/null)

# Where the environment forbids bytecode, as container images do, each start would compile every package anew, which
# takes longer than all else that a start does.
unexport PYTHONDONTWRITEBYTECODE

# What the optional package of compiled kernels is made of.
NATIVE := $(wildcard constraints.txt native/*.* native/src/*.* native/attention_zoo_native/*.*)

TEST_WORKERS ?= 2
ARGS ?=
# Where `make results` writes the report, and where it keeps what it measured on the way.
RESULTS ?= docs/results
RUNS ?= runs/results

.DEFAULT_GOAL := help
.PHONY: help setup train native smollm test lint check format results exchanges surgeries adaptations scaling peers clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "make %-11s %s\n", $$1, $$2}' Makefile

setup: $(VENV)/.native $(VENV)/.dev ## create .venv and install everything into it

train: $(VENV)/.native ## train the default model; ARGS="attention=swa training.steps=100" changes it
	@$(PY) scripts/train.py $(ARGS)

native: $(VENV)/.runtime ## compile the kernels for processors again, and show what the compiler says
	@$(PY) native/install.py --force
	@touch $(VENV)/.native

smollm: $(VENV)/.runtime ## put a real model into the cache, SmolLM2-135M-Instruct (93 MB): checkpoint=smollm
	@$(PY) scripts/smollm.py

test: $(VENV)/.dev $(VENV)/.native $(VENV)/.browser ## run all tests; ARGS="tests/zoo/ops -k tiled" picks some
	@# Tests start hundreds of processes, each of which would compile all that it imports.
	@PYTHONDONTWRITEBYTECODE= $(PY) -m pytest --numprocesses $(TEST_WORKERS) --dist worksteal $(ARGS)

lint: $(VENV)/.dev ## check format, style, types and the direction of imports
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/ruff check .
	@$(PY) -m mypy
	@$(VENV)/bin/lint-imports

check: lint test ## lint and test

format: $(VENV)/.dev ## put every file into the project's format
	@$(VENV)/bin/ruff format .
	@$(VENV)/bin/ruff check --fix .

# Speed first, alone on the machine; then the trainings, two at a time. Every line goes on where it was stopped. The
# budgets are above what the suites take on two cores, so that a slower machine leaves out cells rather than take hours.
results: $(VENV)/.native ## measure every variant and write the report (about an hour on two cores; goes on where it stopped)
	$(call measure,suite=calibrate budget_minutes=2.5)
	$(call measure,suite=adaptive rounds=8 budget_minutes=2)
	$(call measure,suite=wrapper rounds=20 budget_minutes=2)
	$(call measure,suite=attnbench rounds=8 budget_minutes=8)
	$(call measure,suite=grid48 rounds=8 budget_minutes=3)
	$(call measure,suite=layouts budget_minutes=0.5)
	$(call measure,suite=transfer rounds=10 budget_minutes=2.5)
	$(call measure,suite=decode rounds=12 budget_minutes=4)
	$(call measure,suite=long budget_minutes=3)
	$(call measure,suite=grid levels=[model] modes=[step] lengths=[256] models=[gpt_tiny] budget_minutes=2)
	$(call compare,recall,variants=[$(RECALL)],data=mqar model=gpt_recall training.target_accuracy=null $(ASKED) tasks=[mqar])
	$(call compare,needle,variants=[mha$(COMMA)"swa(window_size=16)"],data=needle model=gpt_recall training.target_accuracy=null training.steps=250 $(ASKED) tasks=[needle])
	$(call compare,language,variants=[$(LANGUAGE)],model=gpt_tiny $(SHORT) budgets=[equal_tokens] tasks=[])
	$(call compare,language,variants=[$(CLOCKED)],model=gpt_tiny $(SHORT) tasks=[])
	$(call compare,masked,variants=[$(MASKED)],model=bert_tiny $(SHORT) budgets=[equal_tokens] tasks=[])
	@$(PY) scripts/report.py 'rows=[$(RUNS)/*/rows.jsonl]' out=$(RESULTS) 'pages=[$(PAGES)]'

# Mechanisms that look at fewer tokens need little change, recurrent ones a lot; docs/LOG.md has what other rates gave.
# Both arms that mend have the same.
exchanges: $(VENV)/.native ## exchange the attention of a Llama trained here, and mend it (hours on two cores, minutes on a GPU)
	@$(PY) scripts/train.py attention=mha $(LLAMA) dtype=float32 resume=auto run_dir=$(RUNS)/$(BASE)
	$(call exchange,local,variants=[swa$(COMMA)blocksparse$(COMMA)sinks$(COMMA)hybrid_swa],optimizer.learning_rate=2e-4)
	$(call exchange,recurrent,variants=[linear$(COMMA)gated_delta_chunked],optimizer.learning_rate=4e-3)

surgeries: $(VENV)/.native ## exchange the attention of SmolLM2 for every variant, and say what that breaks (20 minutes on two cores)
	@$(PY) scripts/compare.py checkpoint=smollm variants=[all] arms=[] tasks=[] benchmark=false $(SMOLLM) jobs=$(JOBS) run_dir=$(RUNS)/surgeries

adaptations: $(VENV)/.native ## train adapters of SmolLM2 for four variants: 100 steps of LoRA on conversations (45 minutes on two cores)
	@$(PY) -m tests.endurance.conversations $(RUNS)/conversations
	@$(PY) scripts/compare.py checkpoint=smollm variants=[$(ADAPTED)] arms=[finetune] tasks=[] benchmark=false $(ADAPT) seeds=[0,1,2] run_dir=$(RUNS)/adaptations

scaling: $(VENV)/.native ## time training steps of 1, 2 and 4 processes, and exchanges between them (five minutes on two cores)
	@$(PY) scripts/benchmark.py suite=scaling 'models=[$(SCALED)]' run_dir=$(RUNS)/scaling

# PyTorch has an environment of its own, since other packages import it where they find it.
peers: $(VENV)/.native ## time steps, decoding and attention beside PyTorch's and mlx-lm's, on one set of weights (installs PyTorch)
	@test -x $(VENV)-peers/bin/torchrun || { $(PY) -m venv $(VENV)-peers && $(VENV)-peers/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt numpy torch transformers peft; }
	@test -d $(RUNS)/peers/model || $(PY) scripts/train.py attention=mha $(PEERS) run_dir=$(RUNS)/peers/run
	@test -d $(RUNS)/peers/model || $(PY) scripts/convert.py checkpoint=$(RUNS)/peers/run out=$(RUNS)/peers/model surgery.batches=0
	@for what in step backward forward lora decode; do $(beside) checkpoint=$(RUNS)/peers/model what=$$what $(ARGS) || exit 1; done
	@for what in op op_backward; do $(beside) what=$$what batch_size=1 length=1024 sides=sdpa,native,fused $(ARGS) || exit 1; done

# Documents that show a part of the results: only the project's own.
PAGES = $(if $(filter docs/results,$(RESULTS)),README.md$(COMMA)docs/scaling.md)
COMMA := ,
# Functions, not ways to compute them: another implementation is as good. A window of 64 would see half of a row.
RECALL = mha,"swa(window_size=16)",blocksparse,linear,gated_delta_chunked
LANGUAGE = mha,gqa,mqa,swa,blocksparse,sinks,dilated,linear,linear_relu,linear_squared_relu,gated_delta_chunked,hybrid_swa
# Those that are trained for the seconds that the first one took as well.
CLOCKED = mha,swa,blocksparse,linear,gated_delta_chunked
MASKED = mha,swa,blocksparse,blocksparse_legacy,linear
# Many small steps: of a few seconds' training they make the most.
SHORT = training.batch_size=2 training.steps=96 training.eval_every=24 training.eval_batches=16 $(LEAN)
ASKED = budgets=[equal_tokens] max_batches=16 $(LEAN)
LEAN = training.checkpoint_every=null training.sample_tokens=0
BASE = llama-stdlib
LLAMA = model=llama_tiny training.steps=4000 training.batch_size=32 training.eval_every=500 training.checkpoint_every=500 training.sample_tokens=0
MEND = method=full dtype=float32 training.steps=$(STEPS) training.batch_size=16 training.eval_every=40 training.sample_tokens=0 training.checkpoint_every=null
SMOLLM = data=text data.path=docs/guide.md data.validation_fraction=0.5 training.batch_size=2 training.eval_batches=2
# The first is what a model does without a fused kernel; published figures compare with it.
ADAPTED = mha_manual,mha,swa,linear
ADAPT = method=lora data=examples data.path=$(RUNS)/conversations optimizer.learning_rate=1e-4 training.steps=100 training.batch_size=1 training.sequence_length=512 training.log_every=1 training.eval_every=50 training.eval_batches=8 training.sample_tokens=0 training.checkpoint_every=null
# A Llama of 3.4 million parameters, trained for one step only: it is timed, not used.
PEERS = model=llama_tiny model.hidden_size=256 model.num_layers=4 model.num_heads=8 model.num_kv_heads=4 model.intermediate_size=688 training.steps=1 training.eval_batches=1 training.sample_tokens=0
SCALED = gpt_tiny
JOBS = 2
STEPS = 400
exchange = @$(PY) scripts/compare.py checkpoint=$(RUNS)/$(BASE) '$(2)' $(3) $(MEND) seeds=[0,1,2] jobs=$(JOBS) benchmark=false run_dir=$(RUNS)/exchange-$(1)
beside = $(PY) -m tests.endurance.against_pytorch peer=$(VENV)-peers/bin/python rows=$(RUNS)/peers/rows.jsonl
measure = @$(PY) scripts/benchmark.py $(1) run_dir=$(RUNS)/speed
compare = @$(PY) scripts/compare.py '$(2)' $(3) seeds=[0,1,2] jobs=2 benchmark=false run_dir=$(RUNS)/$(1)

clean: ## remove .venv and the checkout's caches; keeps runs/
	rm -rf $(VENV) $(VENV)-peers build native/build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -not -path './runs/*' -prune -exec rm -rf {} +

$(VENV)/.runtime: pyproject.toml constraints.txt
	@$(PY) -m pip --version >/dev/null 2>&1 || { $(create_environment); }
	@echo 'Installing the dependencies into $(VENV) (about a minute) …' >&2
	@$(PIP_INSTALL) --editable '.$(if $(CUDA),[$(CUDA)])'
# Both of MLX's Linux back ends bring lib/libmlx.so, and the one that was installed last is used.
	@$(if $(CUDA),$(PIP_INSTALL) --no-deps --force-reinstall mlx-cuda-13)
	@touch $@

# Where they cannot be compiled one line says so; `make native` is for whoever mended that.
$(VENV)/.native: $(VENV)/.runtime $(NATIVE)
	@$(PY) native/install.py
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime
	@echo 'Installing the development tools into $(VENV) …' >&2
	@$(PIP_INSTALL) --editable '.[dev]'
	@touch $@

# The report is tested in a real browser: the one that is there, the distribution's, or Playwright's own.
$(VENV)/.browser: $(VENV)/.dev
	@{ $(find_browser) || $(install_browser); } >/dev/null
	@touch $@

find_browser = command -v chromium || command -v google-chrome || command -v chromium-browser
install_browser = { \
	echo 'Installing Chromium, which a test opens the report with …' >&2; \
	if command -v apt-get >/dev/null && test "$$(id -u)" = 0; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends chromium; \
	else \
	  $(PY) -m playwright install chromium; \
	fi; \
}

# `python3` need not be the newest one on PATH, and an interrupted set-up leaves an environment without pip. The pinned
# Hydra does not start on Python 3.14: its help is an object that argparse takes no more.
create_environment = \
	for candidate in "$${PYTHON:-python3}" python3.13 python3.12 python3.11; do \
	  if "$$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then \
	    exec "$$candidate" -m venv --clear $(VENV); \
	  elif "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 14))' 2>/dev/null; then \
	    echo "$$candidate is passed over: Hydra does not run on Python 3.14 or newer yet" >&2; \
	  fi; \
	done; \
	echo 'error: Python 3.11, 3.12 or 3.13 must be on PATH, or be named: PYTHON=/path/to/python make …' >&2; \
	exit 2
