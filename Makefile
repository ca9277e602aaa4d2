# make demo | make test | make docs | make soak | make reproduce | make benchmark; each creates .venv and installs what it needs first.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check docs soak reproduce benchmark clean
.DELETE_ON_ERROR:

# If .venv is a link, it is the environment of another checkout; installing would make that one import this checkout.
# imagecorruptions is read for its photographs of frost only, so that its dependencies are not installed.
.venv/installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "coupled needs Python 3.11 or newer")'
	test -L .venv || { { test -x $(BIN)/python || $(PYTHON) -m venv .venv; } && \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]' && \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps imagecorruptions==1.1.2 && touch $@; }

demo: .venv/installed
	$(BIN)/torchrun --standalone --nproc_per_node=1 coupled/train.py --config configs/demo.yaml --overwrite
	$(BIN)/python analysis/weight_gap.py --run-dir runs/demo --compare nscl scl ce
	$(BIN)/python analysis/alignment.py --run-dir runs/demo --layers stages --cross-layer --num-images 500
	$(BIN)/python analysis/alignment.py --run-dir runs/demo --split test --layers h --metrics cka rsa --confidence 1000 --epochs 0:20:5
	$(BIN)/python analysis/quality.py --run-dir runs/demo --split test --layers h --epochs 0:20:10 --shots 5 \
	  --metrics nccc knn few_shot few_shot_two_way cdnv directional_cdnv root_cdnv
	$(BIN)/python analysis/losses.py --run-dir runs/demo --epochs 0:20:10
	$(BIN)/python analysis/bounds.py --run-dir runs/demo --epochs 0:20:10 || test $$? -eq 1  # status 1: a score is below a bound
	$(BIN)/python analysis/verify.py --run-dir runs/demo --output runs/demo/analysis
	$(BIN)/python analysis/figures.py --run-dir runs/demo
	$(BIN)/python analysis/report.py --run-dir runs/demo

CHECKS = $(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports && $(BIN)/mypy

check: .venv/installed
	$(CHECKS)

# The checks need one core and run beside the tests; what they say is printed at the end. Three processes, also on two
# cores: some of them wait, for ranks, timeouts and the browser. Bytecode is written, also where the user's environment
# forbids it: the tests start many programs.
test: .venv/installed
	said=$$(mktemp); { $(CHECKS); } >$$said 2>&1 & checks=$$!; \
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest \
	  --numprocesses 3 --dist loadfile --no-loadscope-reorder; status=$$?; \
	wait $$checks || status=1; cat $$said; rm $$said; exit $$status

docs: .venv/installed
	NO_MKDOCS_2_WARNING=1 PYTHONPATH=. $(BIN)/mkdocs build --strict

soak: .venv/installed
	SOAK_KILLS=20 $(BIN)/python -m pytest tests/test_soak.py
	PYTHONPATH=.:tests OMP_NUM_THREADS=1 $(BIN)/python tests/support/fault_injection.py

CIFAR10 ?= ../shared/data/cifar10.tar.xz
reproduce: .venv/installed
	test -d data/cifar10_10k || $(BIN)/python scripts/reproduction/cifar10_subset.py $(CIFAR10)
	$(BIN)/python scripts/reproduction/reproduce.py

benchmark: .venv/installed
	$(BIN)/python scripts/benchmarks/benchmark.py --seconds 540 --output benchmark.json --markdown benchmark.md

clean:
	rm -rf .venv
