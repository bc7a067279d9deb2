# heliograph: `make demo` and `make test` set up everything they need on a fresh Debian machine.
#
# Debian lacks only: make git python3-venv gcc g++. As root this file installs what is missing; otherwise it says so.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.heliograph-ready
NATIVE := $(wildcard native/CMakeLists.txt src/heliograph/kernels/*.c src/heliograph/kernels/*.h src/heliograph/kernels/*.cpp)
SITE    = $$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')

# Whole files go to one worker: they share what is dear to make. In the order of collection: the long ones come first.
# Four, also on two processors: the long ones wait for processes that they started.
WORKERS = -n 4 --dist loadfile --no-loadscope-reorder

# The suite starts a thousand processes. Where an image forbids it, each of them would compile our sources anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo test check soak lint format lock wheels clean

help:
	@echo "make demo    two sites, simulated light, a payload across under quantum keys"
	@echo "make test    everything CI runs (at most 15 minutes)"
	@echo "make check   static checks and the quick tests (some minutes): before each commit"
	@echo "make soak    the long runs, once per release"
	@echo "make wheels  a wheel with compiled kernels for this machine, in dist/"

setup: $(STAMP)

$(STAMP): requirements.lock pyproject.toml $(NATIVE)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "heliograph needs Python 3.11 or newer; $(PYTHON) is older: set PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  if [ "$$(id -u)" = 0 ]; then apt-get update -qq && apt-get install -y -qq python3-venv; \
	  else echo "python3-venv is missing: run  apt-get install -y python3-venv  as root"; exit 1; fi
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@echo "$(CURDIR)/src" > "$(SITE)/_editable_skbc_heliograph.pth"  # a path, no import hook: PYTHONPATH still comes first
	@$(BIN)/heliograph --version
	@touch $(STAMP)

demo: setup
	$(BIN)/heliograph demo

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The quick lane: nothing marked slow or soak.
check: lint
	$(BIN)/pytest $(WORKERS) -m "not slow and not soak"

# What CI runs; the long ones by named samples.
test: lint
	$(BIN)/pytest $(WORKERS) -m "not soak"

# On the disk, not in memory (tests/conftest.py).
soak: setup
	TMPDIR=$${TMPDIR:-/tmp} $(BIN)/pytest -m "soak" --durations=20

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Needs uv (pip install uv); writes hashes and no index addresses, so the lock works anywhere.
lock:
	uv pip compile pyproject.toml --group dev --generate-hashes --no-header --no-emit-index-url --no-annotate \
	  --universal --python-version 3.11 -o requirements.lock

wheels: setup
	$(BIN)/python -m build --wheel --no-isolation --outdir dist .

clean:
	rm -rf dist native/CMakeFiles native/CMakeCache.txt native/build.ninja native/.ninja_* src/heliograph/kernels/_native.*.so
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
