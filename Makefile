# Two commands do everything: `make demo` and `make test`.  Both set up first; they need Python >= 3.11 and the package index.
PYTHON ?= python3
TORCH ?= torch==2.13.0
BIN := .venv/bin

.PHONY: setup demo test claims bench docs lint clean
setup: .venv/ready

.venv/ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "fewstep needs Python >= 3.11; name it with make PYTHON=python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || { echo "python's venv module is missing (Debian: apt install python3-venv)"; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "$(TORCH)" || { echo "could not install $(TORCH); name another with make TORCH='torch'"; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]' || { echo "could not reach the package index"; exit 1; }
# A peer that tests and benchmarks stand beside; only its samplers are used, not what else it asks for.
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps k-diffusion || echo "k-diffusion does not install here; its comparisons are skipped"
# deepinv asks for torchvision, which brings another torch; what we compare with needs neither.
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check einops h5py natsort torchmetrics lightning-utilities || echo "deepinv's needs do not install here"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps "deepinv>=0.5,<0.6" || echo "deepinv does not install here; its comparisons are skipped"
	@touch $@

test: setup lint
	$(BIN)/python -m pytest -n 2 --dist loadgroup

demo: setup
	$(BIN)/fewstep demo

claims: setup
	$(BIN)/python -m claims

bench: setup
	$(BIN)/python -W ignore benchmarks/overhead.py
	$(BIN)/python -W ignore benchmarks/pipelines.py
	$(BIN)/python -W ignore benchmarks/error_per_evaluation.py
	$(BIN)/python -W ignore benchmarks/guides.py
	$(BIN)/python -W ignore benchmarks/search.py
	$(BIN)/python -W ignore benchmarks/posteriors.py
	$(BIN)/python -W ignore benchmarks/tuned.py
	$(BIN)/python -W ignore benchmarks/guided_pictures.py
	$(BIN)/python -W ignore benchmarks/precision.py
	$(BIN)/python -W ignore benchmarks/fuzz.py
	$(BIN)/python -W ignore benchmarks/faults.py
	$(BIN)/python -W ignore benchmarks/throughput.py

docs: setup
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]' || { echo "could not reach the package index"; exit 1; }
	$(BIN)/sphinx-build -W --keep-going -q docs docs/build
	@echo "open docs/build/index.html"

lint: setup
	$(BIN)/ruff check src tests benchmarks claims examples
	$(BIN)/ruff format --check src tests benchmarks claims examples
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf .venv out
