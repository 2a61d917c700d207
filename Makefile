# Kest. `make demo` runs the main job, `make test` the tests; both set up everything they need in .venv.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
SOURCES = $(wildcard csrc/core/*.[ch] csrc/python/*.[ch])
KEST_VECTORS ?= $(abspath $(wildcard ../shared/vectors))
export KEST_VECTORS

.PHONY: help setup docs demo demo-delegation lab-up lab-test lab-down test services test-services check bench test-c test-sanitized test-pythons wheels fuzz soak test-tsan test-valgrind analyze demo-gate demo-audit coverage mutants clean

help:
	@echo "make demo            a governed, signed and verified pipeline over real data (a minute at first)"
	@echo "make demo-delegation a user delegates to an agent: five services, an OIDC issuer, Redis, and the attacks on them"
	@echo "make demo-gate       two agents, a payment service, a gate with signed permits, and one Redis (a few seconds)"
	@echo "make demo-audit      that pipeline into an audit log: killed 20 times, verified, proven, tampered with (twenty seconds)"
	@echo "make lab-up          SPIRE, OPA, Keycloak, Redis, a collector and the five services, in the background (half a minute,"
	@echo "                     once make services has built those servers); lab-test tests it, lab-down stops it: docs/lab.md"
	@echo "make test            C and Python tests (about ten minutes)"
	@echo "make services        build servers for those tests once, into ~/.cache/kest-services (10 to 30 minutes)"
	@echo "make test-services   tests against real servers and processes (four minutes, once those are built)"
	@echo "make check           lint, types, C warnings, duplicates (a minute)"
	@echo "make docs            the documentation as a site, in out/site (a minute)"
	@echo "make bench           speed and memory against the reference stack (a quarter of an hour)"
	@echo "make soak            1,000,000 calls and 100,000 requests, and whether anything grows (four minutes)"
	@echo "make test-sanitized  the tests over an ASan and UBSan build, and leaks of the extension (twelve minutes)"
	@echo "make test-tsan       the C core's threading tests under ThreadSanitizer (half a minute)"
	@echo "make test-valgrind   the C core's tests under valgrind (one to three minutes)"
	@echo "make analyze         gcc -fanalyzer and clang-tidy over the C code (two to four minutes)"
	@echo "make fuzz            libFuzzer over the C core, a minute for each of seven harnesses (FUZZ_SECONDS=60)"
	@echo "make coverage        lines and branches of C and Python that the tests run, in one table (ten minutes)"
	@echo "make mutants         small faults in the verifier, the trust math and the gate's evaluator: does a test notice? (twenty minutes)"
	@echo "make test-pythons    pip install . and the unit tests on each installed Python 3.10 to 3.13"
	@echo "make wheels          source distribution and wheels in dist/, built twice, compared and tried (twenty minutes; WHEELS=--quick for fewer tests)"

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml setup.py examples/requirements.txt $(SOURCES)
	@tools/system-packages
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "preparing $(VENV)"
	@$(BIN)/python -m pip install -q --disable-pip-version-check --upgrade pip
	@PYTHONWARNINGS='ignore:Editable installation' $(BIN)/python -m pip install -q --disable-pip-version-check -e ".[dev]" -r examples/requirements.txt
	@touch $@

demo: setup
	@$(BIN)/python examples/demo.py

demo-delegation: setup
	@tools/system-packages redis-server nodejs npm
	@$(BIN)/python examples/delegation/run.py

demo-gate: setup
	@tools/system-packages redis-server
	@$(BIN)/python examples/gate/demo/run.py

demo-audit: setup
	@$(BIN)/python examples/audit/run.py

# The servers are built at first (10 to 15 minutes); after that this takes as long as Keycloak, half a minute.
lab-up: setup
	@tools/system-packages redis-server curl
	@$(PYTHON) tools/services/build -j2 opa spire collector
	@tools/services/keycloak/install >/dev/null
	@$(BIN)/python examples/lab/lab.py up

lab-test: setup
	@$(BIN)/python examples/lab/lab.py status
	$(BIN)/python -m pytest -q tests/lab

# Also after a crash, and in the middle of a start; needs nothing but Python. It fails if anything survives.
lab-down:
	@$(PYTHON) examples/lab/lab.py down

# Without redis-server (and the rights to install it) its tests skip, and say so.
test: setup test-c
	@tools/system-packages redis-server || true
	$(BIN)/python -m pytest -q --ignore=tests/services --ignore=tests/lab

# What this machine has no tools to build is named here, and again by the tests that skip without it.
services:
	@tools/system-packages redis-server nodejs npm curl
	@$(PYTHON) tools/services/build -j2 --possible

# Real servers and processes: OPA, SPIRE, Redis, an OIDC issuer, Keycloak, …, services, a fresh installation.
test-services: setup services
	@tools/system-packages chromium || true
	$(BIN)/python -m pytest -q tests/services

test-c: setup
	@tools/c-tests

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python
	PYTHON=$(BIN)/python tools/c-warnings
	PYTHON=$(BIN)/python tools/duplicates
	$(BIN)/python tools/reference --check

# The reference pages are written from the code and committed; the site is not. It opens from its folder, and fetches nothing.
docs: setup
	@$(BIN)/python tools/extra docs
	$(BIN)/python tools/reference
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build -q --strict
	@echo "out/site/index.html; with its search: $(BIN)/python -m http.server -b 127.0.0.1 -d out/site"

bench: setup
	@$(BIN)/python tools/extra docs
	@mkdir -p build
	$(BIN)/python -m benchmarks.run --write --json build/results.json; status=$$?; \
	$(BIN)/python -m benchmarks.plots build/results.json docs/pictures && exit $$status

# SOAK=0.1 for a tenth of it. The other tests try a hundredth.
SOAK ?= 1
soak: setup
	SOAK=$(SOAK) $(BIN)/python -m pytest -q tests/soak

# Without what runs Python for minutes, other people's or ours, and our C hardly at all.
PYTHON_MOSTLY = services lab contract docs viz doctor telemetry audit/test_audit_faults.py differential/test_strategies.py \
	unit/test_cli_megabytes.py unit/test_measuring.py
test-sanitized: setup
	VENV=$(VENV) tools/test-sanitized tests $(foreach one,$(PYTHON_MOSTLY),--ignore=tests/$(one)) \
		--ignore-glob='*/test_policy_*' --ignore-glob='*/test_gate_http*' --ignore-glob='*/test_gate_mcp*'

test-tsan:
	@tools/system-packages clang libclang-rt llvm
	tools/test-tsan

test-valgrind:
	@tools/system-packages valgrind
	tools/test-valgrind

analyze: setup
	@tools/system-packages clang-tidy
	PYTHON=$(BIN)/python tools/analyze

# The properties hold while the fuzzer looks for what breaks them; then what it found goes through the specification.
FUZZ_SECONDS ?= 60
fuzz: setup
	@tools/system-packages clang libclang-rt llvm
	tools/fuzz $(FUZZ_SECONDS)
	KEST_FUZZ_CORPUS=build/fuzz/found $(BIN)/python -m pytest -q tests/differential/test_corpus.py

# An instrumented build of its own, and reports, in build/coverage. COVERAGE takes arguments for pytest: some of the tests.
coverage: setup
	@tools/system-packages gcov redis-server || true
	@$(BIN)/python tools/extra coverage
	$(BIN)/python tools/coverage $(COVERAGE)

# MUTANTS takes the options of tools/mutants, such as --target gate or --only verify.c
mutants: setup
	$(BIN)/python tools/mutants $(MUTANTS)

test-pythons:
	@tools/system-packages
	tools/test-pythons

# From what is committed. WHEELS takes the options of tools/wheels, such as --quick or --pythons 3.12.
wheels:
	@tools/system-packages
	$(PYTHON) tools/wheels $(WHEELS)

clean: lab-down
	rm -rf build dist out $(VENV) *.egg-info kest/*.so .pytest_cache .mypy_cache .ruff_cache .hypothesis
