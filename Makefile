# Every target stands alone on a bare machine: it makes .venv and installs what it needs, and installs nothing twice.
#   make demo     the whole line on the embedded scene: a table and a picture
#   make test     the tests            make lint   ruff            make bench   timings of this machine
#   make bench-gpu  the CUDA engine beside gsplat, under 10 minutes; without a GPU, what its kernels take of one
#   make fuzz     10000 damaged files for every reader, odd scenes for the rasterizer, and a table of what became of them (CASES=, TARGET=)
#   make sanitize the native tests under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer; fails on any finding
#   make wheel    the package as others install it, into dist/: with the CUDA engine for every architecture that nvcc knows, where there is an nvcc
#   make viewer   the scripts that a report carries (Plotly, three.js), bundled anew from npm; only after a change of splatinit/report/viewer
#   make clean    removes everything that these targets made
# make test EXTRAS=test,ray also runs sweeps on a real Ray cluster of this machine (250 MB, minutes).
# PYTHON=python3.12 chooses the interpreter of a new .venv; VENV=dir puts the environment elsewhere.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

# Python files are used where they lie (an editable install); only these make a new install necessary.
NATIVE := $(shell find cuda -type f 2>/dev/null)

.PHONY: demo test lint bench bench-gpu fuzz sanitize wheel viewer clean
.DELETE_ON_ERROR:

demo: $(VENV)/.run
	$(BIN)/splatinit demo --out runs/demo

test: $(VENV)/.test
	$(BIN)/python -m pytest -q

lint: $(VENV)/.lint
	$(BIN)/ruff check .

bench: $(VENV)/.test
	$(BIN)/python benchmarks/raster.py
	$(BIN)/python benchmarks/step.py
	$(BIN)/python benchmarks/rendering.py

bench-gpu: $(VENV)/.test
	$(BIN)/python benchmarks/gpu.py

CASES ?= 10000
TARGET ?= all
fuzz: $(VENV)/.test
	$(BIN)/python -m tests.fuzz --cases $(CASES) --target $(TARGET)

# The machine's own CMake where it has one: nothing else of the environment is needed here.
CMAKE := $(shell command -v cmake || echo $(BIN)/cmake)
sanitize: $(CMAKE)
	for sanitizer in address thread; do \
	  $(CMAKE) -S cuda -B build/sanitize-$$sanitizer -DSPLATINIT_CUDA=OFF -DSPLATINIT_TESTS=ON \
	    -DSPLATINIT_SANITIZE=$$sanitizer && \
	  $(CMAKE) --build build/sanitize-$$sanitizer --parallel && \
	  $(dir $(CMAKE))ctest --test-dir build/sanitize-$$sanitizer --output-on-failure || exit 1; \
	done

wheel: $(BIN)/python
	rm -rf dist
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps -w dist -C cmake.define.SPLATINIT_CUDA_ARCHITECTURES=all .
	@$(BIN)/python -m zipfile -l dist/*.whl | grep _lib/

viewer:
	cd splatinit/report/viewer && npm ci && npm run build

clean:
	rm -rf $(VENV) build dist runs/demo .pytest_cache .ruff_cache .hypothesis
	find splatinit tests benchmarks data -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(BIN)/cmake: $(BIN)/python
	$(PIP) cmake

$(VENV)/.run: $(BIN)/python pyproject.toml constraints.txt $(NATIVE)
	@echo "Installing into $(VENV) (torch is the large part) and building the native library ..."
	$(PIP) -e .
	@touch $@

EXTRAS ?= test
$(VENV)/.test: $(BIN)/python pyproject.toml constraints.txt $(NATIVE)
	@echo "Installing into $(VENV) (torch is the large part) and building the native library ..."
	$(PIP) -e ".[$(EXTRAS)]"
	@touch $@ $(VENV)/.run

$(VENV)/.lint: $(BIN)/python constraints.txt
	$(PIP) ruff
	@touch $@
