# Everything a developer types. A machine with Python, make and git is enough; `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BENCHMARKS := $(filter-out benchmarks/gpu.py $(wildcard benchmarks/accuracy*.py),$(wildcard benchmarks/*.py))

# A stamp is an empty file named after the checksum of what decides the installation: there, so nothing changed.
INPUTS := $(shell cat pyproject.toml constraints.txt | cksum | cut -d' ' -f1)
RUN_STAMP := $(VENV)/installed-run-$(INPUTS)
DEV_STAMP := $(VENV)/installed-dev-$(INPUTS)

# What `make test-torches` tests: the oldest torch that memtrace supports, one between, and whatever is the newest.
TORCHES := 2.3.1 2.8.0 newest
TORCH_STAMPS := $(TORCHES:%=.venv-torch-%/installed-$(INPUTS))
# Tests of what memtrace does with torch's own objects, and that one recording from end to end.
TORCH_TESTS := tests/torches tests/hooks/test_cpu.py tests/hooks/test_owners.py tests/hooks/test_saved.py

# What `make test-pythons` tests, where the machine has it: frames, the collector and warnings differ from one to the next.
PYTHONS := 3.10 3.12 3.13
PYTHON_STAMPS := $(PYTHONS:%=.venv-python-%/installed-$(INPUTS))
PYTHON_TESTS := tests/hooks tests/launch tests/process

# torch's CUDA build without NVIDIA's libraries (0.5 GB), and what it and memtrace import: see docs/driverless.md.
DRIVERLESS := .venv-driverless
DRIVERLESS_STAMP := $(DRIVERLESS)/installed-$(INPUTS)
DRIVERLESS_TORCH := 2.13.0
DRIVERLESS_NEEDS := typing-extensions sympy networkx jinja2 fsspec filelock numpy click orjson pandas rich pytest hypothesis

# The site of the documentation, built with what no test needs.
SITE := .venv-site
SITE_NEEDS := mkdocs==1.6.1 mkdocs-material==9.8.1 pymdown-extensions==13.1.2
SITE_STAMP := $(SITE)/installed-$(shell echo $(SITE_NEEDS) | cksum | cut -d' ' -f1)

.DEFAULT_GOAL := help
.PHONY: help demo driverless test test-fast test-torches test-pythons gold check mutants faults fuzz endurance docs site bench accuracy gpu gpu-driverless clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(RUN_STAMP): | $(BIN)/python
	$(BIN)/python -m pip install -c constraints.txt -e '.[torch]'
	@rm -f $(VENV)/installed-* && touch $@

$(DEV_STAMP): | $(BIN)/python
	$(BIN)/python -m pip install -c constraints.txt -e '.[torch,dev]'
	@rm -f $(VENV)/installed-* && touch $(RUN_STAMP) $@

demo: $(RUN_STAMP) ## record a small GPT on the CPU and write an HTML report
	@rm -rf demo && mkdir -p demo
	$(BIN)/memtrace record --force -o demo/trace.json -- $(BIN)/python samples/train_gpt.py --steps 4
	$(BIN)/memtrace report demo/trace.json --html demo/report.html --force
	@echo "The report is $(CURDIR)/demo/report.html: open it in a browser."

# Where it cannot be installed, its tests say why and are skipped (or fail, if MEMTRACE_REQUIRE_DRIVERLESS is set).
$(DRIVERLESS_STAMP): | $(BIN)/python
	@rm -rf $(DRIVERLESS) && $(PYTHON) -m venv $(DRIVERLESS)
	@echo "== installing torch for CUDA into $(DRIVERLESS): half a gigabyte"
	@timeout 900 sh -c '$(DRIVERLESS)/bin/python -m pip install --quiet --no-deps torch===$(DRIVERLESS_TORCH) && \
		$(DRIVERLESS)/bin/python -m pip install --quiet -c constraints.txt $(DRIVERLESS_NEEDS)' 2>$(DRIVERLESS)/said.txt \
		&& touch $@ || tail -3 $(DRIVERLESS)/said.txt | tee $(DRIVERLESS)/why-not.txt

driverless: $(DRIVERLESS_STAMP) ## install torch for CUDA into an environment of its own, for tests without a GPU

test: $(DEV_STAMP) $(DRIVERLESS_STAMP) ## run every test
	$(BIN)/python tests/ensure_browser.py
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal --durations=15

test-fast: $(DEV_STAMP) ## run the tests that start no process and open no page
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal -m 'not process and not browser and not slow and not gpu'

# torch 2.3 is built for NumPy 1. Not with constraints.txt: it pins another torch, and what an old one needs is older.
.venv-torch-%/installed-$(INPUTS):
	$(PYTHON) -m venv .venv-torch-$*
	.venv-torch-$*/bin/python -m pip install 'torch$(if $(filter newest,$*),,==$*)' $(if $(filter 2.3.%,$*),'numpy<2') \
		-e . 'hypothesis>=6.100' 'pytest>=8.2' 'pytest-timeout>=2.3'
	@rm -f .venv-torch-$*/installed-* && touch $@

test-torches: $(TORCH_STAMPS) ## run a small suite with old and new torches, each in an environment of its own (TORCHES='2.6.0')
	@failed=; for torch in $(TORCHES); do \
		python=.venv-torch-$$torch/bin/python; \
		test $$torch != newest || $$python -m pip install --quiet --upgrade torch || exit 1; \
		$$python -c 'import torch; print("== torch", torch.__version__, flush=True)'; \
		$$python -m pytest $(TORCH_TESTS) || failed="$$failed $$torch"; \
	done; test -z "$$failed" || { echo "failed with torch$$failed"; exit 1; }

.venv-python-%/installed-$(INPUTS):
	python$* -m venv .venv-python-$*
	.venv-python-$*/bin/python -m pip install -c constraints.txt -e '.[torch,dev]'
	@rm -f .venv-python-$*/installed-* && touch $@

test-pythons: $(PYTHON_STAMPS) ## run what records with other Pythons, each in an environment of its own (PYTHONS='3.13')
	@failed=; for python in $(PYTHONS); do \
		echo "== Python $$python"; \
		.venv-python-$$python/bin/python -m pytest --numprocesses auto --dist worksteal $(PYTHON_TESTS) \
			|| failed="$$failed $$python"; \
	done; test -z "$$failed" || { echo "failed with Python$$failed"; exit 1; }

gold: $(DEV_STAMP) ## accept what reports say now as gold files, showing each difference
	$(BIN)/python tests/gold/accept.py

check: $(DEV_STAMP) ## lint, formatting, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict memtrace

mutants: $(DEV_STAMP) ## put 300 random faults into memtrace, one at a time, and list those that no fast test finds (ARGS=--seed 1)
	$(BIN)/python -m tests.mutants $(ARGS)

faults: $(DEV_STAMP) ## put each named fault of tests/faults/table.py into a copy of memtrace, and run the tests that must find it
	$(BIN)/python -m tests.faults

fuzz: $(DEV_STAMP) ## break inputs for an hour and ask every command about them (ARGS='--inputs 50000 --seed 1')
	$(BIN)/python -m tests.fuzz $(ARGS)

endurance: $(DEV_STAMP) ## kill 200 recorded programs at random moments, and start 500 pairs of launchers together
	$(BIN)/python -m tests.endurance kills --times 200
	$(BIN)/python -m tests.endurance pairs --times 500

docs: $(DEV_STAMP) demo ## regenerate docs/cli.md, docs/trace-format.md and the pictures of the README
	$(BIN)/python docs/generate.py
	$(BIN)/python docs/screenshot.py demo/report.html docs/images/report.png --height 800
	$(BIN)/python docs/screenshot.py demo/report.html docs/images/map.png --view view=map --height 800

$(SITE_STAMP):
	$(PYTHON) -m venv $(SITE)
	$(SITE)/bin/python -m pip install --quiet $(SITE_NEEDS)
	@rm -f $(SITE)/installed-* && touch $@

site: demo $(SITE_STAMP) ## build the documentation as a static site with a live demo: build/site/index.html
	$(BIN)/python docs/site.py build/site-source --demo demo/report.html
	NO_MKDOCS_2_WARNING=1 $(SITE)/bin/python -m mkdocs build --strict
	@echo "The site is $(CURDIR)/build/site/index.html."

bench: $(DEV_STAMP) ## run the benchmarks
	@for file in $(BENCHMARKS); do echo "== $$file"; $(BIN)/python $$file || exit 1; done

accuracy: $(DEV_STAMP) ## run the full accuracy matrix, resuming where it stopped, and write the pages of docs/ that hold its tables
	$(BIN)/python benchmarks/accuracy.py
	$(BIN)/python benchmarks/accuracy_loops.py
	$(BIN)/python benchmarks/accuracy_estimate.py
	$(BIN)/python benchmarks/accuracy_ranks.py

gpu: ## everything that needs a GPU, from the checkout, installing nothing (PYTHON= names the interpreter)
	PYTHONPATH="$(CURDIR)$${PYTHONPATH:+:$$PYTHONPATH}" $(PYTHON) benchmarks/gpu.py

# The Python is that of `make driverless`, or the one that MEMTRACE_DRIVERLESS_PYTHON names.
DEVICE ?= a100-40gb
DRIVERLESS_PYTHON := $(or $(MEMTRACE_DRIVERLESS_PYTHON),$(DRIVERLESS)/bin/python)
gpu-driverless: export PYTHONPATH := $(CURDIR)$(if $(PYTHONPATH),:$(PYTHONPATH))
gpu-driverless: $(if $(MEMTRACE_DRIVERLESS_PYTHON),,$(DRIVERLESS_STAMP)) ## the same without a GPU, as on DEVICE=a100-40gb, but for times
	$(DRIVERLESS_PYTHON) -m memtrace.driverless.start --gpu $(DEVICE) -- $(DRIVERLESS_PYTHON) benchmarks/gpu.py

clean: ## remove the environments, caches and demo output
	rm -rf $(VENV) $(DRIVERLESS) $(SITE) .venv-torch-* demo build dist .mutants .fuzz .pytest_cache .mypy_cache .ruff_cache .hypothesis
