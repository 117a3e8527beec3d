# The commands you type; each target sets up what it needs.
python := PYTHONPATH=python:tests PYTHONDONTWRITEBYTECODE=1 .venv/bin/python
# What boots pods.
python_as_root := PYTHONPATH=python:tests PYTHONDONTWRITEBYTECODE=1 tests/as_root.sh .venv/bin/python
# Several processes read the same files: what one has compiled, the others need not.
pytest := PYTHONPATH=python:tests tests/as_root.sh .venv/bin/python -m pytest
# Tests that may take more than the ten minutes of pyproject.toml.
pytest_long := $(pytest) -o faulthandler_timeout=0
TIER ?= smoke
# Minutes of each of the two soaks of the sync.
SOAK_MINUTES ?= 60
# Tests wait more than they work, so there are more of them at once than there are cores.
WORKERS ?= $(shell expr 2 '*' $$(nproc))
# Options of real_pod.py, such as --gpu "RTX 4090".
REAL_POD ?=
# A folder with ComfyUI and the custom nodes, for a machine without access to GitHub: see README.
SOURCES ?= $(HEARMEMAN_SOURCES)
export HEARMEMAN_SOURCES := $(if $(SOURCES),$(shell realpath -m "$(SOURCES)"))

.PHONY: help demo test lint bench soak prefetch image acceptance reproduce lock lock-models clean docs image-check pin page-check pictures cards real-pod

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

demo: ## build the smoke image, boot it, make a picture and a sentence, find both in the bucket; OPEN=1 keeps the pod and its page running
	@./setup.sh demo
	@OPEN=$(OPEN) $(python) tests/demo.py

test: ## ruff, mypy, pytest
	@./setup.sh test
	@$(python) -m ruff check --no-cache python tests
	@$(python) -m ruff format --no-cache --check python tests
	@$(python) -m mypy & types=$$!; \
	$(pytest) --numprocesses $(WORKERS) --dist loadgroup -m "not alone"; tests=$$?; wait $$types && exit $$tests
	@$(pytest) -m alone

lint: ## ruff and mypy only
	@./setup.sh test
	@$(python) -m ruff check --no-cache python tests
	@$(python) -m mypy

bench: ## compare speed with other tools; takes a while
	@./setup.sh test bench
	@$(python) tests/bench/models.py
	@$(python) tests/bench/sync.py
	@$(python_as_root) tests/bench/gate.py
	@$(python) tests/bench/image_build.py --tier $(TIER)
	@$(python) tests/bench/image_build.py --wheel triton
	@$(python_as_root) tests/bench/boot.py
	@$(python) tests/bench/voice.py
	@$(python) tests/bench/worker.py
	@$(python) tests/bench/workflows.py

soak: ## long tests: fresh seeds, 200 kills each of a fetch, a sync and a batch, SOAK_MINUTES of real encoders
	@./setup.sh test
	@HYPOTHESIS_PROFILE=soak $(pytest_long) -m hypothesis
	@KILLS=200 $(pytest_long) tests/models/test_models_kill.py -s -k random
	@CRASHES=200 $(pytest_long) -s tests/sync/test_sync_crash.py
	@KILLS=200 $(pytest_long) -s tests/workflows/test_batch.py -k killed
	@$(python_as_root) tests/soak/sync.py --minutes $(SOAK_MINUTES)
	@$(python_as_root) tests/soak/sync.py --minutes $(SOAK_MINUTES) --kill-every 60

prefetch: ## download everything in TIER's image into the Nix store
	@./setup.sh demo
	@$(python) -m hearmeman_build prefetch --tier $(TIER)

image: prefetch ## build TIER's image
	@$(python) -m hearmeman_build build --tier $(TIER)

image-check: ## boot TIER's full image on CPU: nodes, prompts, late imports, libraries; WRITE=1 records its node classes
	@./setup.sh test
	@$(python_as_root) tests/image_check.py --tier $(TIER) $(if $(WRITE),--write-nodes)

acceptance: ## as root: tests with a container engine, fresh Debian machines and the full image; takes hours, fails if a tool is missing
	@./setup.sh test acceptance
	@$(pytest_long) -s tests/acceptance/page.py
	@$(pytest_long) tests/acceptance/voice_fuzz.py
	@$(pytest_long) tests/acceptance/docker_engine.py tests/acceptance/fresh_machines.py
	@$(MAKE) image image-check TIER=consumer

page-check: ## test the page and the login in Chromium, with real pods; takes minutes
	@./setup.sh test page
	@$(pytest_long) -s tests/acceptance/page.py

real-pod: ## create, use and end one pod on RunPod, for under a dollar; asks first, prints rows for docs/verification.md
	@./setup.sh test
	@$(python) tests/acceptance/real_pod.py $(REAL_POD)

pictures: ## retake docs/*.png from the current page, and the cards of our templates in ComfyUI
	@./setup.sh test page
	@$(python_as_root) tests/acceptance/pictures.py
	@$(python) tests/acceptance/cards.py --all

cards: ## draw the cards of workflows that are new or have a new title
	@./setup.sh test page
	@$(python) tests/acceptance/cards.py

reproduce: ## build TIER's image in two empty stores and compare
	@./setup.sh demo
	@$(python) -m hearmeman_build reproduce --tier $(TIER)

lock: ## resolve flake.nix, packages.txt and the environments; keeps Python versions that still fit unless UPGRADE=1
	@./setup.sh test
	@$(python) -m hearmeman_build lock $(if $(UPGRADE),--upgrade)

lock-models: ## look up every model's commit, size and hash, and write them to the catalogue's lock
	@./setup.sh test
	@MODEL_CATALOGUE=python/hearmeman/models/catalogue.toml $(python) -m hearmeman models lock --all

pin: ## move ComfyUI to COMFYUI_COMMIT, in flake.nix and flake.lock
	@./setup.sh demo
	@$(python) -m hearmeman_build pin --commit "$(COMFYUI_COMMIT)"

docs: ## write the generated parts of docs/
	@./setup.sh test
	@$(python) docs/generate.py

# The tests write files as other users; a plain user deletes them in the same way.
made := .work .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis
clean: ## delete everything that the other targets made here
	rm -rf $(made) 2>/dev/null || tests/as_root.sh rm -rf $(made)
	find . -name __pycache__ -prune -exec rm -rf {} +
