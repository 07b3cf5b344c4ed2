# Needs Python 3.10 or newer with venv; everything else is installed into .venv.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check soak gpu bench same clean

.venv/run.done: requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

.venv/test.done: requirements-test.txt .venv/run.done
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-test.txt
	@touch $@

demo: .venv/run.done ## train, test and evaluate the embedded default
	PATH="$(CURDIR)/$(BIN):$$PATH" scripts/demo.sh

test: .venv/test.done ## the test suite
	$(BIN)/python -m pytest -n auto --maxprocesses 8

soak: .venv/test.done ## the long fault and slow tests, and their tables; FAULTS=1000 for more, SEED=2 for others
	rm -rf .soak
	status=0; $(BIN)/python -m pytest -m slow -n auto --maxprocesses 8 || status=$$?; \
		$(BIN)/python -m tests.faults.table; exit $$status

gpu: .venv/test.done ## the tests that need a CUDA device, or two
	TEST_GPU=1 $(BIN)/python -m pytest -m gpu -n 0 tests/test_gpu.py

bench: .venv/test.done ## our speed against plain transcriptions of the methods, 15 minutes on 2 cores
	$(BIN)/python -m benchmarks

same: .venv/test.done ## BASE=<commit>: this tree computes what that commit computes, bit for bit; 10 minutes on 2 cores
	$(BIN)/python -m tests.same $(BASE)

check: .venv/test.done ## lint and types, under a minute
	$(BIN)/ruff check .
	$(BIN)/mypy

clean: ## the environment, not your runs
	rm -rf .venv .pytest_cache .ruff_cache .mypy_cache .soak
