# Two commands do everything on a machine with Python 3.11 and nothing else: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
JOBS ?= 2

.PHONY: demo test test-slow test-lowest check gate lock sbom argument casestudy bench findings book clean

# What CI and a container install is pinned with hashes: requirements/README.md.
TEST_EXTRAS := calendars,dbn,paging,postgresql,console,dask,nats,fix,redis,metrics,otel,statistics,nautilus,freqtrade,test,check
RUN_EXTRAS := paging,postgresql,console,nats,fix,redis,metrics,otel,statistics,shadow,speed
PIP := -m pip install -q --disable-pip-version-check
comma := ,

$(BIN)/holdover: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -e .
	touch $@

$(VENV)/.test: pyproject.toml requirements/test.lock $(BIN)/holdover
	$(BIN)/python $(PIP) --require-hashes -r requirements/test.lock
	$(BIN)/python $(PIP) --no-deps --no-build-isolation -e .
	touch $@

TOOLS := out/tools
$(TOOLS)/.tools: requirements/tools.lock
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python $(PIP) --require-hashes -r requirements/tools.lock
	touch $@

# Pins everything again; UPGRADE=--upgrade takes the newest versions.
UPGRADE :=
COMPILE = $(TOOLS)/bin/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
  --no-emit-index-url --no-emit-find-links $(UPGRADE)
lock: $(TOOLS)/.tools
	$(COMPILE) pyproject.toml requirements/build.in $(addprefix --extra ,$(subst $(comma), ,$(TEST_EXTRAS))) -o requirements/test.lock
	$(COMPILE) pyproject.toml requirements/build.in $(addprefix --extra ,$(subst $(comma), ,$(RUN_EXTRAS))) -c requirements/test.lock -o requirements/run.lock
	$(COMPILE) requirements/tools.in -o requirements/tools.lock

# A CycloneDX bill of materials of what the tests run with.
sbom: $(TOOLS)/.tools $(VENV)/.test
	$(TOOLS)/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --of JSON -o out/sbom.json $(BIN)/python
	@echo "wrote out/sbom.json"

demo: $(BIN)/holdover
	@echo "== Two simulated sessions, yesterday carried along, and the same days from a fresh state"
	$(BIN)/holdover cycle --out out/demo/holds
	@echo
	@echo "== The same with a seeded fault: the desk forgets the partial fill that it carries"
	@$(BIN)/holdover cycle --fault forget-carried-partial --out out/demo/caught; code=$$?; \
	  if [ $$code -eq 1 ]; then echo "Caught, as it should be. Look at out/demo/caught/report.html"; \
	  else echo "The fault was not caught (exit code $$code)"; exit 1; fi

test: $(VENV)/.test
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal

# What takes many trials, beside it.
test-slow: $(VENV)/.test
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m slow

# The unit tests with the oldest versions that pyproject.toml allows. httpx is what an old Starlette's test client uses.
LOWEST := out/lowest
test-lowest: $(TOOLS)/.tools
	$(TOOLS)/bin/uv venv -q --clear --python $(PYTHON) $(LOWEST)
	VIRTUAL_ENV=$(LOWEST) $(TOOLS)/bin/uv pip install -q --resolution lowest-direct 'httpx>=0.27' \
	  -e '.[calendars,dbn,paging,postgresql,console,dask,nats,fix,redis,metrics,otel,statistics,shadow,speed,hypothesis,test]'
	$(LOWEST)/bin/python -m pytest -n $(JOBS) --dist worksteal tests/unit

check: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/unit/test_layers.py

# The merge gate on the desk itself: its state tests, judged by state-coverage.toml.
gate: $(VENV)/.test
	$(BIN)/holdover gate --corpus corpus --junit out/gate/junit.xml --summary out/gate/summary.md \
	  -- tests/state -m state -n $(JOBS) --dist worksteal
	$(BIN)/holdover coverage html --out out/gate/state-map.html

# Line coverage of a fresh-state suite beside its state coverage.
argument: $(VENV)/.test
	$(BIN)/python bench/argument.py

# A simulated year of operating the desk, half without Holdover and half with it: docs/casestudy.md.
casestudy: $(VENV)/.test
	$(BIN)/python bench/casestudy.py --workers $(JOBS)

# Benchmarks, one file a figure, each prints a table and writes out/bench/*.json. What they are compared with is installed
# into an environment of its own.
BENCH := out/bench/venv
BENCHES := guard guard_stack guard_latency replay snapshot sweep stateful scheduler audit dask_scaling state_coverage divergence obey live nautilus_restart

$(BENCH)/.bench: pyproject.toml
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python -m pip install -q --disable-pip-version-check -e '.[dbn,postgresql,dask,fix,nautilus,metrics,speed,test]' \
	  icontract deal async-solipsism looptime aiotools typing_extensions pyarrow
	touch $@

bench: $(BENCH)/.bench
	@for one in $(BENCHES); do echo "== bench/$$one.py"; $(BENCH)/bin/python bench/$$one.py || exit 1; done
	@echo "== bench/soak.py"; $(BENCH)/bin/python bench/soak.py --hours 0.2 --sessions 40

# The stories of what was found in other people's software, played again on the installed releases.
findings: $(VENV)/.test
	$(BIN)/python bench/findings.py nautilus --markdown docs/findings/nautilus.md
	$(BIN)/python bench/findings.py freqtrade --markdown docs/findings/freqtrade.md

book: $(BIN)/holdover
	$(BIN)/holdover catalogue book --out out/catalogue.html

clean:
	rm -rf $(VENV) out build dist
