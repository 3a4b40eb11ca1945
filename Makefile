# make app    sets up everything and starts the app
# make test   sets up everything and runs the tests
# Everything installed goes into .venv; delete that folder to undo it.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: app train test test-jax lint clean

app: .venv/app.done
	$(BIN)/python app.py

train: .venv/train.done
	$(BIN)/python train.py

test: .venv/dev.done lint
	$(BIN)/python -m pytest

# The same model tests with JAX instead of TensorFlow.
test-jax: .venv/dev.done
	KERAS_BACKEND=jax $(BIN)/python -m pytest tests/test_model.py tests/test_decoding.py

lint: .venv/dev.done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf .venv

.venv/app.done: requirements.txt
.venv/train.done: requirements.txt requirements-train.txt
.venv/dev.done: requirements.txt requirements-train.txt requirements-dev.txt

# The largest set that a target names is its last prerequisite; the stamp says it is installed.
.venv/%.done:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -r $(lastword $^)
	touch $@
