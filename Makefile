# Every target first creates .venv if pyproject.toml or constraints.txt is newer than it.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
FUZZ_EXAMPLES ?= 200
export FUZZ_EXAMPLES

.PHONY: fit test test-all coverage lint options docs notebook bench gpu tensorboard clean

fit: $(READY)
	$(BIN)/python -m lightning_rnn fit

test: $(READY)
	$(BIN)/python -m pytest -n 2 -m "not slow"

test-all: $(READY)
	$(BIN)/python -m pytest -n 2

# pip-audit needs the network: being offline is reported, but is no failure
# the fast tests again, with the lines that they run; those of other processes do not count
coverage: $(READY)
	$(BIN)/python -m pytest -n 2 -m "not slow" --cov=lightning_rnn --cov-report=term:skip-covered

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	@$(BIN)/pip-audit --local --skip-editable --progress-spinner off --timeout 10 >.venv/audit 2>&1 \
		&& echo "pip-audit: no known vulnerabilities" \
		|| { grep -q "Found .* known vulnerabilit" .venv/audit && { cat .venv/audit; exit 1; } \
		|| echo "pip-audit: skipped, the vulnerability database could not be reached"; }

options: $(READY)
	$(BIN)/python tests/option_table.py

# no server is needed to read it: site/index.html
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	$(BIN)/python docs/check_links.py site

# after a change of docs/tutorial.md
notebook: $(READY)
	$(BIN)/python docs/tutorial_notebook.py

bench: $(READY)
	$(BIN)/python -m benchmarks

gpu: $(READY)
	$(BIN)/python -m benchmarks.gpu

tensorboard: $(READY)
	$(BIN)/tensorboard --logdir lightning_logs

clean:
	rm -rf .venv build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; assert sys.version_info >= (3, 11), f'expected Python 3.11 or newer, got {sys.version}'"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev,docs,export]"
	touch $(READY)
