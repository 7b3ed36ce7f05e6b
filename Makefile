# Train, test and look at Fashion-MNIST CNN variants. `make` lists the targets; every variable may come from the environment.

VARIANT ?= baseline
SEED ?=
EPOCHS ?=
DATASET ?=
MONITORS ?=
RESUME ?=
VARIANTS ?= baseline no_dropout sgd
SEEDS ?= 0 1 2 3 4
JOBS ?= 1
TRIALS ?= 50
SPACE ?=
IMAGES ?=
STORAGE ?=
STUDY ?=
ARGS ?=
LOGDIR ?= lightning_logs
PYTHON ?= python3
export DATA_DIR ?= data

BIN := .venv/bin
READY := .venv/ready

.DEFAULT_GOAL := help
.PHONY: help setup train data compare search demo tensorboard report test test-all test-oldest test-newest test-lightning test-foreign ci soak bench bench-peers bench-monitors bench-gpu bench-growth lint format docs gallery clean

help: ## List the targets and their variables
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo '  Variables of train: VARIANT=baseline (a packaged name or your own YAML) SEED=0 EPOCHS= DATA_DIR=data'
	@echo '    DATASET=fashion_mnist|synthetic MONITORS=on|off RESUME=last LOGDIR=lightning_logs ARGS="--trainer.devices=2 ..."'
	@echo '  Of search: TRIALS=50 EPOCHS=5 JOBS=1 SEED=0 SPACE=mine.yaml IMAGES= STORAGE=postgresql://... STUDY= DATASET= ARGS='
	@echo '  Of compare: VARIANTS="baseline no_dropout sgd" SEEDS="0 1 2 3 4" EPOCHS= JOBS=1 DATASET= ARGS="--reference sgd ..."'

setup: $(READY) ## Make .venv with everything in it (the other targets do it if need be)

# torch and torchvision must come from one index in one go, or torchvision cannot load its operators.
$(READY): INTERPRETER = $(PYTHON)
.venv-newest/ready: INTERPRETER = $(PYTHON_3_13)
$(READY) .venv-newest/ready: pyproject.toml
	$(INTERPRETER) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --upgrade pip
	$(@D)/bin/python -m pip install --quiet --editable ".[compare,fast,search,slim,mysql,postgresql]" --group dev
	@touch $@

train: $(READY) ## Train VARIANT, test its best checkpoint, print the summary
	$(BIN)/fmnist fit --variant "$(VARIANT)" $(if $(SEED),--seed_everything=$(SEED)) \
		$(if $(EPOCHS),--trainer.max_epochs=$(EPOCHS)) $(if $(DATASET),--data.dataset=$(DATASET)) \
		$(if $(MONITORS),--monitors=$(MONITORS)) $(if $(RESUME),--resume "$(RESUME)") $(LOGS) $(ARGS)
LOGS = $(if $(filter-out lightning_logs,$(LOGDIR)),--trainer.logger.init_args.save_dir=$(LOGDIR))

data: $(READY) ## Find the data, or fetch them: caches, mirrors, Debian's package (train does it if need be)
	$(BIN)/fmnist data

demo: $(READY) ## Two short trainings on synthetic images: no data, no network, under a minute
	$(BIN)/fmnist fit --variant baseline $(DEMO) $(LOGS)
	$(BIN)/fmnist fit --variant no_dropout $(DEMO) $(LOGS)
DEMO := --data.dataset=synthetic --data.training_images=6000 --trainer.max_epochs=2

compare: $(READY) ## Train VARIANTS with every one of SEEDS, skip what is finished, print what differs by more than chance
	$(BIN)/fmnist compare --variants $(VARIANTS) --seeds $(SEEDS) --jobs $(JOBS) $(if $(DATASET),--dataset $(DATASET)) \
		--logdir $(LOGDIR) $(if $(EPOCHS),--epochs $(EPOCHS)) $(ARGS)

search: $(READY) ## Search for the best configuration with Optuna, confirm the winner, report which choices mattered
	$(BIN)/fmnist search --trials $(TRIALS) --epochs $(or $(EPOCHS),5) --jobs $(JOBS) --seed $(or $(SEED),0) \
		$(if $(SPACE),--space "$(SPACE)") $(if $(IMAGES),--images $(IMAGES)) $(if $(STORAGE),--storage "$(STORAGE)") \
		$(if $(STUDY),--study "$(STUDY)") $(if $(DATASET),--dataset $(DATASET)) --logdir $(LOGDIR) $(ARGS)

tensorboard: $(READY) ## Show the runs in LOGDIR
	$(BIN)/tensorboard --logdir $(LOGDIR)

report: $(READY) ## Write the Training Health page of LOGDIR as report.html
	$(BIN)/fmnist report --logdir $(LOGDIR)

# A file's tests stay in one process, with their fixtures. One thread each: torch's threads do not share a core well.
TESTED = $(BIN)
PYTEST = OMP_NUM_THREADS=1 $(TESTED)/python -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile
test: $(READY) ## Run the quick tests, in up to four processes (about two minutes)
	$(PYTEST) -m "not slow"

test-all: $(READY) ## Run all tests: those too that train for long, fork, drive a browser or a database
	$(PYTEST)

# What needs the experiment, whose bounds are higher, is left out; `slow` would add minutes.
MONITORS_ALONE = tests/training_health -m "not slow" --ignore=tests/training_health/test_packaged_variants.py
test-oldest: TESTED = .venv-oldest/bin
test-oldest: .venv-oldest/ready ## Run the monitors' quick tests on the oldest versions they take: Python 3.10, torch 2.2, Lightning 2.2
	for package in lightning.pytorch pytorch_lightning; do \
		LIGHTNING=$$package $(PYTEST) $(MONITORS_ALONE) || exit 1; \
	done

.venv-oldest/ready: callbacks/pyproject.toml tests/training_health/oldest-requirements.txt
	$(PYTHON_3_10) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet -r tests/training_health/oldest-requirements.txt
	.venv-oldest/bin/python -m pip install --quiet --no-deps ./callbacks
	@touch $@
PYTHON_3_10 ?= $(lastword python3.10 $(wildcard $(HOME)/.pyenv/versions/3.10.*/bin/python))

test-newest: TESTED = .venv-newest/bin
test-newest: .venv-newest/ready ## Run the quick tests on the newest Python: 3.13
	$(PYTEST) -m "not slow"

PYTHON_3_13 ?= $(lastword python3.13 $(wildcard $(HOME)/.pyenv/versions/3.13.*/bin/python))

test-lightning: $(READY) ## Run the monitors' quick tests under `lightning` instead of `pytorch_lightning`
	LIGHTNING=lightning.pytorch $(PYTEST) $(MONITORS_ALONE)

ci: $(READY) ## All checks, one thing varied at a time; what cannot be done here is skipped with a word (half an hour)
	.ci/checks

test-foreign: $(READY) .venv-foreign/ready ## Try the monitors in other people's projects, in a venv of its own (a few minutes)
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 .venv-foreign/bin/python -m pytest --numprocesses=2 --override-ini=filterwarnings= \
		--show-capture=no tests/foreign/projects.py

soak: $(READY) ## Kill, tear and damage runs at full counts (an hour or more)
	$(BIN)/python -m tests.soak

bench: $(READY) ## Measure speed against plain pipelines, and what the monitors cost elsewhere (about ten minutes on a quiet machine)
	$(BIN)/python -m benchmarks quick $(ARGS)

bench-peers: $(READY) .venv-peers/ready ## Measure against Keras on TensorFlow, in a venv of its own
	$(BIN)/python -m benchmarks peers $(ARGS)

bench-monitors: $(READY) .venv-monitors/ready ## Count planted dead units with ours and ten other tools, each in a venv of its own
	$(BIN)/python -m benchmarks planted $(ARGS)

bench-gpu: $(READY) ## Measure on a CUDA device
	$(BIN)/python -m benchmarks gpu $(ARGS)

bench-growth: $(READY) ## Measure how costs grow with data, width, sites and epochs
	$(BIN)/python -m benchmarks growth $(ARGS)

.venv-peers/ready:
	@echo 'Installing keras and tensorflow into .venv-peers (about 2 GB)'
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet -r benchmarks/peers-requirements.txt
	@touch $@

# One venv per line; what does not install leaves its pip.log to the table.
.venv-monitors/ready: benchmarks/planted/requirements.txt $(READY)
	@echo 'Installing ten tools into .venv-monitors (350 MB)'
	@for peer in $$(sed -n 's/^\([a-z].*==[^ ]*\).*/\1/p' $<); do \
		venv=.venv-monitors/$${peer%%[=[]*}; \
		$(BIN)/python -m venv --clear $$venv; \
		$(call borrow,$$venv); \
		$$venv/bin/python -m pip install --quiet "$$peer" >$$venv/pip.log 2>&1 || echo "$$peer does not install"; \
	done
	@touch $@

# What .venv has, torch first of all, is borrowed from it.
borrow = $(BIN)/python -c 'import sysconfig; print("import site; site.addsitedir(%r)" % sysconfig.get_path("purelib"))' \
	>"$$($(1)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/borrowed.pth"

.venv-foreign/ready: tests/foreign/requirements.txt $(READY)
	@echo "Installing other people's projects into .venv-foreign (600 MB)"
	$(BIN)/python -m venv --clear .venv-foreign
	$(call borrow,.venv-foreign)
	.venv-foreign/bin/python -m pip install --quiet -r tests/foreign/requirements.txt
	@touch $@

lint: $(READY) ## Check style, types and which way imports run, and the page's JavaScript; changes nothing
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	DENO_NO_UPDATE_CHECK=1 $(BIN)/deno check --quiet --config $(PAGE)/jsconfig.json $(PAGE)/index.js
PAGE := callbacks/training_health/tab/static

format: $(READY) ## Rewrite the code in the project's style
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: $(READY) ## Build the documentation into docs/_build, with warnings as errors
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet -b html docs docs/_build
	@echo 'Open docs/_build/index.html'

gallery: $(READY) ## Train what the reports of docs/gallery show, and write them (about an hour)
	$(BIN)/python docs/gallery/make.py $(ARGS)

clean: ## Remove .venv and what the tools left; runs and data stay
	rm -rf .venv .venv-* build dist docs/_build docs/jupyter_execute .mypy_cache .pytest_cache .ruff_cache *.egg-info
	find fmnist_pl callbacks tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
