# Every target sets up what it needs: Python >= 3.11 and make are all a fresh machine must have.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && command -v $$p && break; done)
BIN := .venv/bin
READY := .venv/.ready
CODE := synth_ct pretrain finetune reports ray_jobs
WORKERS ?= 2
REAL ?= ../shared/data
NEED_REAL = test -d "$(REAL)/ct" && test -d "$(REAL)/chest_xray_224" || { echo "this compares phantoms with \
	real images, and there is no $(REAL)/ct or $(REAL)/chest_xray_224; set REAL=... to their folder" >&2; exit 1; }

.PHONY: quickstart test setup check fix bench docs chaos

quickstart: setup  ## the whole experiment on phantoms
	$(BIN)/synth-ct quickstart

test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python >= 3.11 is needed and was not found; install it or set PYTHON=..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || { echo "could not make .venv; on Debian install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@# Tests read an export back with nnU-Net's own reader, which needs none of its dependencies.
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps nnunetv2 batchgenerators
	@touch $@

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python .ci/size_gate.py $(CODE) --also tests benchmarks .ci

fix: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup  ## tables under docs that are measured; each script says its recipe in its first lines
	$(BIN)/python benchmarks/drr.py --write docs/results/drr.md
	$(BIN)/python benchmarks/samplers.py --write docs/results/samplers.md
	$(BIN)/python benchmarks/codebook.py --write docs/results/codebook.md
	$(BIN)/python benchmarks/kernels.py --write docs/results/kernels.md
	$(BIN)/python benchmarks/corpus_scale.py --write docs/results/corpus_scale.md
	$(BIN)/python benchmarks/pretrain_reading.py --write docs/results/pretrain_speed.md
	$(BIN)/python benchmarks/predict_overlap.py --write docs/results/predict_overlap.md
	$(BIN)/python benchmarks/finetune_speed.py --write docs/results/finetune_speed.md
	@$(NEED_REAL)
	$(BIN)/python benchmarks/quality.py --real $(REAL) --write docs/results/quality.md
	$(BIN)/python benchmarks/field_of_view.py --real $(REAL) --write docs/results/field_of_view.md
	$(BIN)/python benchmarks/corpus_io.py --real $(REAL)/ct --write docs/results/corpus_io.md
	$(BIN)/python benchmarks/phantom_tissues.py $(REAL) --write docs/phantom.md
	$(BIN)/python benchmarks/radiograph_windows.py $(REAL) --write docs/radiographs.md

docs: setup  ## pictures under docs/img, of phantoms beside the real images of REAL
	@$(NEED_REAL)
	$(BIN)/python benchmarks/phantom_sheet.py $(REAL) docs/img/phantom-beside-real.png
	$(BIN)/python benchmarks/radiograph_sheet.py $(REAL) docs/img

chaos: setup  ## long proofs by repeated killing
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m chaos
