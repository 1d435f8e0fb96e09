# Both commands do all their own set-up, from a bare checkout.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test test-slow lint clean

demo: $(READY)  ## tune the toy SDXL by TailorPO on this machine: about five minutes on two cores
	$(BIN)/python jobs/tailorpo_sdxl.py --model toy-sdxl --reward jpeg --name demo

test: $(READY)  ## without Ray on both cores, then each test that starts actors, alone
	$(BIN)/python -m pytest -q -m "not slow" -n 2 --dist loadfile --ignore tests/pipeline
	$(BIN)/python -m pytest -q -m "not slow" --durations=15 tests/pipeline

test-slow: $(READY)
	$(BIN)/python -m pytest -q -m slow

lint: $(READY)
	$(BIN)/ruff check rayalign jobs benchmarks tests
	$(BIN)/mypy rayalign jobs benchmarks

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV)
