# make demo   trains the real network on built-in digits, predicts, writes runs/demo/report.html
# make test   runs the test suite
# make test-all   the test suite, the C kernels under sanitizers, the GPU kernels without a GPU
# make test-sanitizers   runs the tests of the C kernels with AddressSanitizer and UBSan (gcc with libasan)
# make test-triton   runs the GPU kernels in Triton's interpreter, and compiles them, on a machine without a GPU
# make walk   runs examples/walk.py and keeps it, with its pictures, as examples/walk.ipynb
# make lint   ruff and pyright;  make clean  removes .venv and caches (never runs/)
#
# demo and test set everything up first, in .venv, with the versions of constraints.txt; the second time that is skipped.
# PYTHON=/path/to/python3.12 chooses the interpreter, PYTEST_ARGS="-k loader" passes options to pytest.

VENV := .venv
BIN := $(VENV)/bin
TORCH := $(shell sed -n 's/^torch==//p' constraints.txt)
TRITON := 3.9.0
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALLED := $(VENV)/installed-test
INSTALLED_DEV := $(VENV)/installed-dev
DEMO := runs/demo

# One thread a test process: two processes that each take all cores get in each other's way.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1

.PHONY: help demo test test-all test-sanitizers test-triton walk lint format clean setup

help:
	@sed -n -e '/^VENV/q' -e 's/^# *//p' Makefile

setup: $(INSTALLED)

demo: $(INSTALLED)
	@echo "==> Training the as_run network on handwritten digits into $(DEMO)"
	$(BIN)/alexnet train digits --data digits --output $(DEMO)
	@echo "==> Predicting a few images by name"
	$(BIN)/alexnet predict $(DEMO) $(DEMO)/examples --top 3
	@echo "==> Done. The report, one file that opens offline: $(CURDIR)/$(DEMO)/report.html"

test: $(INSTALLED)
	@echo "==> Running the tests"
	$(ONE_THREAD) MPLBACKEND=Agg $(BIN)/python -m pytest -n 2 --dist worksteal --durations 15 $(PYTEST_ARGS)

test-triton: $(INSTALLED)
	@echo "==> Installing triton $(TRITON)"
	$(PIP) install --quiet triton==$(TRITON)
	@echo "==> Running the tests of the GPU kernels"
	$(ONE_THREAD) $(BIN)/python -m pytest -n 2 --dist worksteal --durations 5 tests/parity/test_triton_*.py \
	    tests/unit/training/test_graphed_step.py $(PYTEST_ARGS)

# A copy of the package with its kernels built so that every access out of bounds and all undefined behavior ends the
# test. Each test that calls the kernels runs, the random ones at full length.
SANITIZED := build/sanitized
test-sanitizers: $(INSTALLED)
	@echo "==> Building the C kernels with AddressSanitizer and UBSan"
	@test -e "$$(cc -print-file-name=libasan.so)" || { echo "error: libasan is missing. Debian: apt install gcc libc6-dev" >&2; exit 2; }
	@rm -rf $(SANITIZED) && mkdir -p $(SANITIZED)
	@cp -r alexnet tests setup.py pyproject.toml README.md LICENSE $(SANITIZED) && rm -f $(SANITIZED)/alexnet/ops/native/_kernels*
	cd $(SANITIZED) && CFLAGS="-g -fno-wrapv -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all" \
	    LDFLAGS="-fsanitize=address,undefined" $(abspath $(BIN))/python setup.py --quiet build_ext --inplace
	@echo "==> Running the tests of the kernels with them"
	cd $(SANITIZED) && LD_PRELOAD="$$(cc -print-file-name=libasan.so) $$(cc -print-file-name=libubsan.so)" \
	    ASAN_OPTIONS=detect_leaks=0:log_path=report UBSAN_OPTIONS=print_stacktrace=1:log_path=report ALEXNET_FUZZ_CASES=20000 $(ONE_THREAD) \
	    PYTHONPATH=$(abspath $(SANITIZED)):$(abspath $(SANITIZED))/tests $(abspath $(BIN))/python -m pytest -q -p no:cacheprovider \
	    -n 2 --dist worksteal tests/unit/ops tests/parity/test_block.py tests/unit/data/test_resample.py \
	    tests/unit/data/test_augment.py || { cat report.*; exit 1; }

test-all: test test-sanitizers test-triton

walk: $(INSTALLED)
	$(BIN)/python examples/render.py

lint: $(INSTALLED_DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(INSTALLED_DEV)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -not -path './runs/*' -prune -exec rm -rf {} +

# The stamp is written last, so that an interrupted installation is taken up again.
$(INSTALLED): pyproject.toml setup.py constraints.txt $(wildcard alexnet/ops/native/*.c alexnet/ops/native/*.inc)
	@set -e; \
	if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	    python=; \
	    for candidate in $(PYTHON) python3.13 python3.12 python3.11 python3 python3.14 python; do \
	        if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	            python="$$candidate"; break; \
	        fi; \
	    done; \
	    if [ -z "$$python" ]; then \
	        echo "error: no Python 3.11 or later was found."; \
	        echo "  Debian, Ubuntu: sudo apt install python3 python3-venv      macOS: brew install python@3.13"; \
	        echo "  or name one:    make PYTHON=/path/to/python3.12 $(or $(MAKECMDGOALS),demo)"; \
	        exit 2; \
	    fi >&2; \
	    if ! "$$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then \
	        version=$$("$$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	        echo "error: $$python cannot make virtual environments (its venv and ensurepip modules are missing)."; \
	        echo "  Debian, Ubuntu: sudo apt install python$$version-venv      then run make again"; \
	        exit 2; \
	    fi >&2; \
	    echo "==> Making a virtual environment in $(VENV) with $$("$$python" --version)"; \
	    rm -rf $(VENV); \
	    "$$python" -m venv $(VENV); \
	fi
	@echo "==> Installing torch $(TORCH) (the first time this downloads it; it is large)"
	$(PIP) install -c constraints.txt torch==$(TORCH)
	@echo "==> Installing alexnet and what its tests need"
	$(PIP) install --quiet -c constraints.txt -e '.[test]'
	@$(BIN)/python -c 'import sys, torch; found = torch.__version__.split("+")[0]; \
	    sys.exit(found != "$(TORCH)" and f"error: torch {found} is installed instead of $(TORCH); run make clean")'
	@$(BIN)/python -c 'from alexnet.ops import native; print("==> Compiled for this processor: " + native.describe() \
	    if native.AVAILABLE else "==> No C compiler was found: the network runs on plain torch, more slowly.\n" \
	    "    Debian, Ubuntu: sudo apt install gcc    macOS: xcode-select --install    then: make clean, and make again")'
	@touch $(INSTALLED)

$(INSTALLED_DEV): $(INSTALLED)
	@echo "==> Installing ruff and pyright"
	$(PIP) install --quiet -c constraints.txt -e '.[dev]'
	@touch $(INSTALLED_DEV)
