# Every target makes the environment it needs; PYTHON chooses the interpreter.
PYTHON ?= python3
BIN = .venv/bin

.PHONY: demo docs test test-all test-backends lint bench test-oldest

demo: .venv/installed-examples
	$(BIN)/python examples/sentiment.py

# Two processes, for two cores; the tests of a file share one, and what it has compiled.
PYTEST = $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test: .venv/installed-test .venv-backends/installed
	$(PYTEST) -m "not slow"

# Before a release: the slow tests too, and layers of random configurations against independent
# computations of the same numbers.
test-all: .venv/installed-test .venv-backends/installed
	$(PYTEST)
	$(BIN)/python tests/fuzz.py --minutes 5

test-backends: .venv/installed-test .venv-backends/installed
	$(BIN)/python -m pytest tests/test_backends.py tests/test_derivatives.py

lint: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: .venv/installed-bench
	$(BIN)/python benchmarks/import_time.py
	$(BIN)/python benchmarks/whole_job.py
	$(BIN)/python benchmarks/recurrent_layers.py
	$(BIN)/python benchmarks/parts.py
	$(BIN)/python benchmarks/cells.py
	$(BIN)/python benchmarks/depth.py
	$(BIN)/python benchmarks/gradient_flow.py
	$(BIN)/python benchmarks/monitor.py
	$(BIN)/python benchmarks/search_memory.py
	$(BIN)/python benchmarks/chief.py

# The site, in build/docs. mkdocs-material 9.7 advertises its successor without the variable.
docs: .venv/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --site-dir build/docs
	@echo "Open build/docs/index.html"

# The lower bounds of setup.cfg, in an environment of their own.
test-oldest: .venv-oldest/installed-test
	.venv-oldest/bin/python -m pytest

.venv/installed-%: setup.cfg pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable ".[$*]"
	touch $@

# Of Keras's other backends, for the processes of tests/other_backends.py, which find the package in
# the checkout. What they do not import is not compiled.
.venv-backends/installed: tests/backends.txt
	test -x .venv-backends/bin/python || $(PYTHON) -m venv .venv-backends
	.venv-backends/bin/python -m pip install --quiet --no-compile --requirement tests/backends.txt
	touch $@

.venv-oldest/installed-test: setup.cfg pyproject.toml tests/oldest.txt
	test -x .venv-oldest/bin/python || $(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet --editable ".[test]" --constraint tests/oldest.txt
	touch $@
