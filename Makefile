# The same one-word commands for people and CI. Each makes what it needs: a virtual environment in .venv.
# PYTHON=... chooses the interpreter; else the first of python3.13 … python3.10 that runs is taken.

PYTHON ?= $(firstword $(foreach name,python3.13 python3.12 python3.11 python3.10 python3 python,$(shell \
	$(name) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' >/dev/null 2>&1 && echo $(name))))
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

# What is locked is what CI has run; the second name is the one by which pip 25.3 and later constrain what builds the wheel.
# A name and not a path: pip takes a blank in it for its end.
export PIP_CONSTRAINT := requirements.lock
export PIP_BUILD_CONSTRAINT := requirements.lock

# What a profile says to every Python and pip is not meant for .venv: text is UTF-8, an assert is heard, a warning is none
# of pip's failures.
export PYTHONUTF8 := 1
export PIP_USER := 0
unexport PYTHONDEVMODE PYTHONHOME PYTHONOPTIMIZE PYTHONWARNINGS

# crc32c, an extension module of its own, is under the LGPL; what is under the MPL is used as it is.
LICENCES := Apache;BSD;MIT;PSF;Python Software Foundation;MPL-2.0;Mozilla Public License 2.0;LGPLv2+

.DEFAULT_GOAL := help
.PHONY: help demo test test-real fuzz soak bench lint accuracy image test-image manifests docs lock sbom audit wheel clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: .venv/.local ## upload digits, or images=DIR, on a local stack and watch where they go
	@case '$(firstword -$(MAKEFLAGS))' in *k*) echo "make takes --keep for its own --keep-going: say make demo ARGS=--keep" >&2;; esac
	@$(BIN)/mnist-pipeline demo $(if $(filter command,$(firstword $(origin images))),--images "$$images") $(ARGS)

test: .venv/.dev ## unit, contract and end-to-end tests on local servers
	@$(BIN)/python -m pytest -n auto $(ARGS)

test-real: .venv/.dev ## tests on Apache Kafka and MinIO themselves; builds them once (Java 17, Maven, Go)
	@$(BIN)/python -m pytest -n auto --real -m real $(ARGS)

fuzz: .venv/.dev ## try the properties of tests/fuzz on thousands of new inputs each (ten minutes)
	@HYPOTHESIS_PROFILE=fuzz $(BIN)/python -m pytest --timeout 3600 tests/fuzz $(ARGS)

soak: .venv/.dev ## send 50,000 events through a local stack and watch the transformer's memory (twenty minutes)
	@$(BIN)/python tests/soak.py $(ARGS)

bench: .venv/.dev ## compare CPU, events/s and latency side by side with a bare script and an empty KServe
	@env PYTHONPATH=tests $(BIN)/python -m benchmarks $(ARGS)

lint: .venv/.dev ## ruff, mypy --strict, pyright on a user's view, import-linter
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/basedpyright
	@$(BIN)/lint-imports

accuracy: .venv/.dev ## measure how 1,000 pictures of each kind are read, and show those that are not
	@$(BIN)/python tests/accuracy.py $(ARGS)

image: .venv/bin/python ## build the images with Docker, or with buildah and podman, and weigh them
	@$(BIN)/python docker/images.py $(ARGS)

test-image: image .venv/.dev ## run the images: read-only, as uid 1000, without capabilities
	@$(BIN)/python -m pytest -m image tests/image $(ARGS)

manifests: .venv/.dev ## build every overlay of manifests/ with kustomize, and check what it comes to (Go)
	@$(BIN)/python -m pytest -m manifests tests/manifests $(ARGS)

docs: .venv/.docs ## build the documentation into build/docs; a warning is an error
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict $(ARGS)
	@echo build/docs/index.html

wheel: .venv/.dev ## build the wheel into dist/
	@$(BIN)/python -m build --wheel

lock: .venv/.dev ## resolve requirements.lock anew, for every Python from 3.10 to 3.13
	@$(PIP) install uv
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.10 --extra dev --extra docs --extra supply --no-emit-package mnist-pipeline \
		--custom-compile-command 'make lock' --output-file requirements.lock pyproject.toml

# As docker/transformer.Dockerfile installs it, on this Python.
sbom: .venv/.supply ## write what the transformer's image holds of Python to build/sbom.json (CycloneDX), and look at its licences
	@rm -rf build/held && $(BIN)/python -m venv --without-pip build/held
	@$(PIP) --python build/held/bin/python install '.[otel]'
	@$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --output-format JSON --output-file build/sbom.json build/held/bin/python
	@$(BIN)/pip-licenses --python build/held/bin/python --from mixed --order license --partial-match --allow-only '$(LICENCES)'
	@echo build/sbom.json

audit: .venv/.supply ## ask PyPI for known vulnerabilities of all that is locked
	@$(BIN)/pip-audit --requirement requirements.lock --no-deps --disable-pip --strict $(ARGS)

clean: ## remove what the other commands made
	@rm -rf .venv dist build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "No Python from 3.10 to 3.13 was found (KServe takes no other). Install one, or say make PYTHON=..."; exit 1; }
	@echo "Making .venv with $$($(PYTHON) --version) ($(PYTHON))"
	@$(PYTHON) -m venv .venv

# A dot every two seconds, because pip is quiet unless it fails.
define install
	@printf 'Installing mnist-pipeline[$(1)] into .venv (the first time this takes a minute or two) '
	@(while sleep 2 && kill -0 $$$$ 2>/dev/null; do printf .; done) & dots=$$!; trap 'kill $$dots' EXIT; trap 'exit 130' INT TERM; \
		$(PIP) install --editable '.[$(1)]' && echo
endef

# The project itself is installed from this folder, so that an edit takes effect at once.
.venv/.local: .venv/bin/python pyproject.toml requirements.lock
	$(call install,local)
	@touch $@

.venv/.dev: .venv/bin/python pyproject.toml requirements.lock
	$(call install,dev)
	@touch $@ .venv/.local

.venv/.supply: .venv/.dev
	$(call install,supply)
	@touch $@

.venv/.docs: .venv/.dev
	$(call install,docs)
	@touch $@
