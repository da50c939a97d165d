# Every recipe first installs what it needs. PYTHON=python3.12 chooses the interpreter, GPU=1 the
# CUDA lock, LEAN=1 the one without torch, ARGS="--port 9000" is handed to the command.

VENV ?= $(if $(GPU),.venv-gpu,$(if $(LEAN),.venv-lean,.venv))
ARGS ?=

lock := requirements/$(if $(GPU),cuda,$(if $(LEAN),lean,cpu)).txt
# A stamp is named after what it was installed from, so a change of a lock is seen and a second run
# installs nothing.
runtime := $(VENV)/.installed-$(shell cat $(lock) pyproject.toml | cksum | cut -d ' ' -f 1)
dev := $(runtime)-$(shell cksum < requirements/dev.txt | cut -d ' ' -f 1)
platform = $(shell $(VENV)/bin/python -c 'import sysconfig; print(sysconfig.get_platform())')
c_sources := $(wildcard server/appliance/engine/native/kernels/*.[ch] \
	server/appliance/engine/native/kernels/*.inc bench/*.c tests/unit/engine/native/kernels/*.c)
shell_scripts := .ci/run scripts/*.sh tests/k8s/cluster/*.sh tests/nix/standin/*.sh

# Start-up time is part of the product: let Python keep its byte code.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup serve runtime chat test check fix docs laws bench bench-peers build lock manifest model nix-test
.PHONY: nix-full cluster-test cluster-shell clean

help: ## list the recipes
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

setup: $(dev) ## install everything the other recipes need

serve: $(runtime) ## start the server (GPU=1: on a CUDA device; LEAN=1: without torch)
	@exec $(VENV)/bin/appliance serve $(ARGS)

runtime: $(runtime) ## run the service of llama-runtime/ without Flox
	@exec $(VENV)/bin/python scripts/runtime.py $(ARGS)

chat: $(runtime) ## talk to the model in this terminal
	@exec $(VENV)/bin/appliance chat $(ARGS)

test: $(dev) ## run the tests
	@$(VENV)/bin/python -m pytest $(ARGS)

check: $(dev) ## formatting, lint, types, shell scripts, reference pages, fast tests
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/clang-format --dry-run -Werror $(c_sources)
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/mypy
	@PATH="$(VENV)/bin:$$PATH" shellcheck $(shell_scripts)
	@$(VENV)/bin/python -m scripts.docs --check
	@$(VENV)/bin/python -m pytest -q tests/unit

fix: $(dev) ## apply ruff's fixes, and the format of Python and C
	@$(VENV)/bin/ruff check --fix .
	@$(VENV)/bin/ruff format .
	@$(VENV)/bin/clang-format -i $(c_sources)

docs: $(dev) ## write docs/reference from the code
	@exec $(VENV)/bin/python -m scripts.docs

laws: $(dev) ## compare every bit under varying conditions and print the table (2 minutes)
	@exec $(VENV)/bin/python -m tests.engine.law_matrix

bench: $(runtime) ## measure this machine: start, speed, limits (ARGS=--help)
	@$(VENV)/bin/python -m bench startup
	@exec $(VENV)/bin/python -m bench compare --peers none $(ARGS)

bench-peers: $(runtime) ## install other engines and measure beside them (ARGS=--quick)
	@exec $(VENV)/bin/python -m bench compare $(ARGS)

build: $(runtime) ## build the wheel in dist/ (KERNELS=1: with compiled kernels, for this platform)
	@rm -rf build/lib build/bdist.* server/appliance/engine/native/kernels/*.so
	@$(if $(KERNELS),$(VENV)/bin/python -m appliance.engine.native.kernels)
	@$(VENV)/bin/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist \
		$(if $(KERNELS),--config-settings=--build-option=--plat-name=$(platform)) . \
		&& rm -f server/appliance/engine/native/kernels/*.so
	@ls -l dist/*.whl

manifest: ## write k8s/llama.yaml from k8s/base
	@scripts/manifest.sh

lock: ## write requirements/*.txt (ARGS=--upgrade: with newer versions)
	@PYTHON="$(PYTHON)" scripts/install.sh .venv-lock requirements/lock.txt
	@scripts/lock.sh .venv-lock/bin/uv $(ARGS)

model: $(runtime) ## train the embedded model again
	@PYTHONPATH=server $(VENV)/bin/python -m pebble.train $(ARGS)

nix-test: $(dev) ## test the packages on real Nix: the default set, about two minutes
	@scripts/nix.sh
	@$(VENV)/bin/python -m pytest tests/nix tests/release -m nix $(ARGS)

nix-full: $(dev) ## build the whole server on real Nix, twice
	@scripts/nix.sh
	@$(VENV)/bin/python -m pytest tests/nix -m nix_full --capture=no $(ARGS)

cluster-test: $(dev) ## test the manifests on a Kubernetes of one node, under load; as root on Debian 12
	@tests/k8s/cluster/run.sh $(abspath $(VENV))/bin/python -m pytest -m cluster -s -q tests/k8s/cluster $(ARGS)

cluster-shell: $(dev) ## open a shell in that Kubernetes
	@tests/k8s/cluster/run.sh $(abspath $(VENV))/bin/python -m tests.k8s.cluster.shell

clean: ## remove what the recipes made, except the embedded model
	@rm -rf .venv .venv-gpu .venv-lean .venv-lock build dist server/*.egg-info
	@rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find server tests bench -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

$(runtime):
	@PYTHON="$(PYTHON)" scripts/install.sh $(VENV) $(lock)
	@$(VENV)/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@rm -f $(VENV)/.installed-*
	@touch $@

$(dev): $(runtime)
	@PYTHON="$(PYTHON)" scripts/install.sh $(VENV) requirements/dev.txt
	@touch $@
