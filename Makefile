# make demo: install into .venv, train and compare on the shipped emoji set, write runs/demo/report.html
# make docs: the documentation into site/, warnings as errors
# make test: install the development tools into .venv, run lint, types, documentation, tests and `make test-triton`
# make test-integrations: test with other libraries: sentence-transformers, Haystack, LangChain, mteb, LanceDB, Qdrant, clients of the service
# make gpu: check a CUDA device against float64, and measure it
# make test-triton: test the Triton kernels in Triton's interpreter, without a GPU
PY ?= python3
V := .venv/bin
# A waiting OpenMP thread that spins starves other processes on a small machine.
export OMP_WAIT_POLICY ?= PASSIVE

$(V)/python:
	$(PY) -m venv .venv

.venv/.core: $(V)/python pyproject.toml constraints.txt
	$(V)/pip install -q -c constraints.txt -e .
	touch $@

.venv/.dev: .venv/.core
	$(V)/pip install -q -c constraints.txt -e ./unialign-datasets -e ".[dev]"
	touch $@

.venv/.docs: .venv/.core
	$(V)/pip install -q -c constraints.txt -e ".[docs]"
	touch $@

# Installed separately, since everything else must work without it.
.venv/.triton: .venv/.dev
	$(V)/pip install -q --no-deps --target .venv/triton -c constraints.txt triton
	touch $@

# Other tools in an environment that reads the packages of .venv but does not contain this library.
# langchain-huggingface demands an older huggingface_hub than transformers, and works with the newer one.
INTEGRATIONS := .venv/integrations
$(INTEGRATIONS)/.ready: .venv/.dev
	$(V)/python -m venv --clear $(INTEGRATIONS)
	$(V)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))" > $$(echo $(INTEGRATIONS)/lib/python3*/site-packages)/dev.pth
	$(INTEGRATIONS)/bin/pip install -q -c constraints.txt mteb haystack-ai sentence-transformers-haystack langchain-core
	$(INTEGRATIONS)/bin/pip install -q -c constraints.txt openai cohere mcp lancedb qdrant-client umap-learn lightly-studio-serve "ray[serve]"
	$(INTEGRATIONS)/bin/pip install -q -c constraints.txt --no-deps langchain-huggingface
	touch $@

# Data sets and weights are a separate distribution; Pillow reads the thumbnails, and `serve` shows the results.
.venv/.demo: .venv/.core
	$(V)/pip install -q -c constraints.txt -e ./unialign-datasets -e ".[demo,serve]"
	touch $@

demo: .venv/.demo
	$(V)/unialign demo

docs: .venv/.docs
	NO_MKDOCS_2_WARNING=1 $(V)/mkdocs build

# The checks of .pre-commit-config.yaml and mypy.
CHECKED := src research tests benchmarks data-builders examples unialign-datasets docs/_build.py
lint: .venv/.dev
	$(V)/ruff check $(CHECKED)
	$(V)/ruff format --check $(CHECKED)
	$(V)/codespell $(CHECKED) docs README.md CONTRIBUTING.md AGENTS.md
	$(V)/mypy

test: lint docs
	OMP_NUM_THREADS=1 $(V)/python -m pytest -n auto --dist worksteal
	$(MAKE) test-triton

test-triton: .venv/.triton
	PYTHONPATH=.venv/triton TRITON_INTERPRET=1 OMP_NUM_THREADS=1 $(V)/python -m pytest tests/ops/test_triton.py

test-integrations: $(INTEGRATIONS)/.ready
	PYTHONPATH=src:unialign-datasets OMP_NUM_THREADS=1 $(INTEGRATIONS)/bin/python -m pytest -m integrations -n auto --dist loadfile tests

# The checks of a CUDA device against float64, and the GPU rows of the speed page; without one, the list of checks.
gpu:
	PYTHONPATH=src:tests $(if $(wildcard $(V)/python),$(V)/python,$(PY)) -m benchmarks.gpu

.PHONY: demo docs gpu lint test test-integrations test-triton
