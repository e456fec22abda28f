# Every target installs what it needs. PYTHON selects the interpreter (3.11 to 3.13).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: setup demo test bench soak check docs clean

setup: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@command -v uv >/dev/null || test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet uv
	@PATH="$(PATH):$(CURDIR)/$(BIN)" uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraints constraints.txt --editable '.[dev]'
	@touch $@

demo: setup
	@$(BIN)/derainctl sweep configs/ldfps.yaml

# Two processes, each with half of the cores; tests/conftest.py divides the tests.
test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup

# Long reliability tests; docs/measurements/reliability.md has their results. Some need root.
soak: setup
	$(BIN)/python -m tests.soak.prepare_kills
	$(BIN)/python -m pytest tests/soak/prepare_remote.py
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -s tests/soak/soak_*.py
	$(BIN)/python -m pytest -m soak

# Benchmarks against peers, which only this target installs.
bench: $(VENV)/peers
	$(BIN)/python -m benchmarks $(if $(ROUNDS),--rounds $(ROUNDS))

PEERS := $(addprefix benchmarks/,apart.txt shared.txt built.txt)
TO_PEERS = PATH="$(PATH):$(CURDIR)/$(BIN)" uv pip install --quiet --python $(BIN)/python --target build/peers --overrides benchmarks/shared.txt
$(VENV)/peers: $(VENV)/installed $(PEERS)
	@PATH="$(PATH):$(CURDIR)/$(BIN)" uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraints constraints.txt --editable '.[dev,bench]'
	@$(TO_PEERS) --requirements benchmarks/apart.txt
	@if pkg-config --exists opencv4 libturbojpeg; then $(TO_PEERS) --requirements benchmarks/built.txt; \
	else echo "bench: FFCV is left out, since it needs OpenCV and libjpeg-turbo (benchmarks/built.txt)"; fi
	@touch $@

check: setup
	@rm -rf build/typing && mkdir -p build/typing/derain
	@cd build/typing/derain && ln -s ../../../derain.py __init__.py && ln -s ../../../platform/* .
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	cd build/typing && ../../$(BIN)/lint-imports --config ../../pyproject.toml
	$(BIN)/mypy -p derain

# The documentation as a site, build/site/index.html; a warning is an error (not with --quiet).
docs: $(VENV)/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

$(VENV)/docs: $(VENV)/installed
	@PATH="$(PATH):$(CURDIR)/$(BIN)" uv pip install --quiet --python $(BIN)/python --constraints constraints.txt --editable '.[dev,docs]'
	@touch $@

clean:
	rm -rf $(VENV) build
