# make app    sets up everything and starts the app
# make test   sets up everything and runs the tests
# make space  puts what a Hugging Face Space needs, and nothing else, into build/space
# Everything installed goes into .venv; delete that folder to undo it.

PYTHON ?= python3
# A path, perhaps with spaces in it, or a command with options.
RUN_PYTHON = $(if $(shell command -v "$(PYTHON)"),"$(PYTHON)",$(PYTHON))
BIN := .venv/bin
SPACE := build/space

.PHONY: app train test test-jax test-lowest lint space clean

app: .venv/app.done
	$(BIN)/python app.py

train: .venv/train.done
	$(BIN)/python train.py

test: .venv/dev.done lint
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# All tests that know no backend, with JAX instead of TensorFlow. What is compiled is kept in build.
test-jax: .venv/dev.done
	KERAS_BACKEND=jax JAX_COMPILATION_CACHE_DIR=build/compiled $(BIN)/python -m pytest \
	  -n 2 --dist loadfile --no-loadscope-reorder tests/model tests/test_captioner.py \
	  tests/test_golden.py $(addprefix tests/training/test_,$(addsuffix .py,batches \
	  cross_entropy device_steps finetuning rewards views))

# Some tests with the lowest versions of everything that the requirements allow.
test-lowest:
	$(PYTHON) -m venv build/lowest
	build/lowest/bin/python -m pip install --quiet uv
	build/lowest/bin/uv pip install --quiet --python build/lowest/bin/python \
	  --resolution lowest-direct -r requirements-dev.txt
	build/lowest/bin/python -m pytest -m "not slow" tests/test_captioner.py tests/test_files.py \
	  tests/test_faults.py tests/data/test_images.py tests/drawing/test_overlay.py \
	  tests/training/test_cross_entropy.py

lint: .venv/dev.done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/ty check --quiet --python $(BIN)/python
	$(BIN)/python tools/lint_scripts.py

# What LFS must carry on the Hub: files over 10 MB, and whatever is not text.
space:
	rm -rf $(SPACE)
	mkdir -p $(SPACE)/assets
	cat assets/space_header.md README.md > $(SPACE)/README.md
	cp app.py requirements.txt LICENSE CHANGELOG.md CITATION.cff CONTRIBUTING.md $(SPACE)
	cp -R captioner docs $(SPACE)
	find $(SPACE) -name __pycache__ -prune -exec rm -r {} +
	cp -R assets/checkpoint assets/examples assets/*.png $(SPACE)/assets
	printf '%s filter=lfs diff=lfs merge=lfs -text\n' '*.safetensors' '*.png' '*.jpg' '*.webp' > $(SPACE)/.gitattributes

clean:
	rm -rf .venv build

.venv/app.done: requirements.txt
.venv/train.done: requirements.txt requirements-train.txt
.venv/dev.done: requirements.txt requirements-train.txt requirements-dev.txt

# It is missing, too, if it leads to a Python that was removed. Then nothing counts as installed.
$(shell test -x $(BIN)/python || rm -f .venv/*.done)
$(BIN)/python:
	@$(RUN_PYTHON) -c '$(CHECK)' "this is %d.%d. Choose another: make app PYTHON=python3.13"
	rm -f $(BIN)/python*
	$(RUN_PYTHON) -m venv .venv

CHECK = import sys; sys.exit(None if (3, 11) <= sys.version_info < (3, 14) else \
  "TensorFlow 2.21 needs Python 3.11, 3.12 or 3.13, and " + sys.argv[-1] % sys.version_info[:2])

# The largest set that a target names is its last prerequisite; the stamp says it is installed.
# Python compiles what it imports; to compile all packages would take half a minute more.
.venv/%.done: | $(BIN)/python
	@$(BIN)/python -c '$(CHECK)' ".venv has %d.%d. Move that folder away, and try again"
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --no-compile -r $(lastword $^)
	touch $@
