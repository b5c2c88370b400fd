# `make demo` trains and analyses a small real cohort; `make test` runs the tests. Both set themselves up.
VENV := .venv
PYTHON := $(VENV)/bin/python
COHORT := dyck3-quick-independent
# Tests run beside each other, one thread each: threads of two processes on one core wait for one another.
export PYTEST_XDIST_AUTO_NUM_WORKERS ?= 2

.PHONY: demo test test-all check format docs benchmark clean

demo: $(VENV)/.installed
	$(PYTHON) train.py seed=[0,1,2] experiment=quick
	$(PYTHON) analyze.py cohort=$(COHORT)

test: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n 2 -m "not slow"

test-all: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n 2

check: $(VENV)/.installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: $(VENV)/.installed
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

docs: $(VENV)/.installed
	$(PYTHON) -m mkdocs build --strict --quiet

benchmark: $(VENV)/.installed
	$(PYTHON) -m benchmarks.training
	$(PYTHON) -m benchmarks.comparison

# torch goes first and by its exact version, so that pip does not weigh one build against another.
$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(PYTHON) || python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --disable-pip-version-check "$$(grep '^torch==' constraints.txt)"
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) cohorts site .pytest_cache .mypy_cache .ruff_cache
