# Two commands do everything on a machine with Python 3.11 and nothing else: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
JOBS ?= 2

.PHONY: demo test check gate argument bench findings book clean

$(BIN)/holdover: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -e .
	touch $@

$(VENV)/.test: pyproject.toml $(BIN)/holdover
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[calendars,dbn,paging,postgresql,console,dask,nats,fix,metrics,otel,statistics,nautilus,freqtrade,test,check]'
	touch $@

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

bench: $(VENV)/.test
	$(BIN)/python -m pip install -q --disable-pip-version-check icontract deal
	$(BIN)/python bench/guard.py
	$(BIN)/python bench/guard_stack.py
	$(BIN)/python bench/obey.py
	$(BIN)/python bench/soak.py --hours 1 --sessions 40
	$(BIN)/python bench/audit.py
	$(BIN)/python bench/state_coverage.py
	$(BIN)/python bench/sweep.py
	$(BIN)/python bench/live.py

# The stories of what was found in other people's software, played again on the installed releases.
findings: $(VENV)/.test
	$(BIN)/python bench/findings.py nautilus --markdown docs/findings/nautilus.md
	$(BIN)/python bench/findings.py freqtrade --markdown docs/findings/freqtrade.md

book: $(BIN)/holdover
	$(BIN)/holdover catalogue book --out out/catalogue.html

clean:
	rm -rf $(VENV) out build dist
