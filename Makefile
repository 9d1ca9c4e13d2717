# make demo      measure real recommenders on real data and write a report   [DEVICE=cpu|cuda]
# make test      every check and test of the project
# make bench     the default suite, one test per cell                        [DEVICE=cpu|cuda]
# make pictures  the README's pictures of the dashboard, of the newest demo  [OF=runs/…]
# make lint      the checks without the tests
# make clean     remove the environment and what tools leave behind; runs/ stays
#
# Each sets up .venv by itself. Needed: Python 3.11 or later with pip, and a package index.

DEVICE ?= cpu
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
TORCH := $(shell sed -n 's/.*"\(torch==[^"]*\)".*/\1/p' pyproject.toml)
RUN := runs/demo-$(shell date +%Y%m%d-%H%M%S)

OF ?= $(lastword $(sort $(wildcard runs/demo-*)))

.PHONY: demo test bench pictures lint clean
.DELETE_ON_ERROR:

demo: .venv/.all
	@status=0; $(BIN)/leanrec run demo --device $(DEVICE) --out $(RUN) || status=$$?; \
	test -f $(RUN)/plan.json || exit $$status; \
	$(BIN)/leanrec report $(RUN) --format md,html,csv,json --out $(RUN)/report || exit 2; \
	echo; \
	echo "Report:    $(RUN)/report (open the .html in a browser)"; \
	echo "Records:   $(RUN)/records"; \
	echo "Dashboard: $(BIN)/leanrec dashboard $(RUN)"; \
	exit $$status

test: lint
	$(BIN)/python -m pytest

bench: .venv/.dev
	$(BIN)/python -m pytest bench --device $(DEVICE)

pictures: .venv/.dev
	@test -n "$(OF)" || { echo "There is no demo to picture: 'make demo' first." >&2; exit 2; }
	$(BIN)/python -m dashboard.camera $(OF) dashboard/pictures

lint: .venv/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.all: pyproject.toml .venv/.torch
	$(PIP) install --quiet -e '.[all]'
	@touch $@

.venv/.dev: pyproject.toml .venv/.torch
	$(PIP) install --quiet -e '.[dev]'
	@touch $@

# Without an NVIDIA driver, the package index's torch would bring gigabytes of CUDA libraries that
# nothing could use. PyTorch's own index has the build without them; where it cannot be reached,
# the installation above takes what the package index has.
.venv/.torch: pyproject.toml $(BIN)/python
	@command -v nvidia-smi >/dev/null || { \
		echo "Installing $(TORCH) for the CPU"; \
		$(PIP) install --quiet --no-deps --retries 0 --timeout 20 \
			--index-url https://download.pytorch.org/whl/cpu $(TORCH) \
		|| echo "PyTorch's index cannot be reached: taking torch from the package index."; }
	@touch $@

# Some systems ship Python without ensurepip: there, the pip that is installed fills the environment.
$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later is needed, and was not found." >&2; exit 2; }
	@$(PYTHON) -m venv .venv >/dev/null 2>&1 \
		|| { $(PYTHON) -m venv --clear --without-pip .venv \
		&& $(PYTHON) -m pip --python $@ install --quiet pip; }
