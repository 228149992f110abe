# make book   environment, all chapters executed, the site built        make lab      JupyterLab on the chapters
# make test   everything that must hold                                 make clean    remove what was built
#
# The environment lies in .venv and is only rebuilt when its pins change. To use another Python: make PYTHON=python3.12 book.
# Extra options for pip go into PIP_ARGS, for example to choose an index with CPU builds of PyTorch; JOBS is the number
# of processes that run tests.

PYTHON ?= python3
PIP_ARGS ?=
JOBS ?= 2
VENV := .venv
ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
else
BIN := $(VENV)/bin
endif
PY := $(BIN)/python
READY := $(VENV)/.ready
BOOKKIT := PYTHONPATH=book $(PY) -m bookkit

# A relative path is meant from here, but chapters run in folders of their own.
absolute = $(shell $(PYTHON) -c 'import os, sys; print(os.path.abspath(sys.argv[1]))' "$(1)")
ifneq ($(TWODASL_FACE_MODEL),)
override export TWODASL_FACE_MODEL := $(call absolute,$(TWODASL_FACE_MODEL))
endif
ifneq ($(TWODASL_DATA),)
override export TWODASL_DATA := $(call absolute,$(TWODASL_DATA))
endif

.DEFAULT_GOAL := help
.PHONY: help env book quick pdf handouts slides lab test unit gpu lint pair student serve sheets lock clean distclean

help:
	@sed -n '1,2s/^# //p' Makefile
	@echo "make quick  as make book, but chapters 1 to 3 first, opened in the browser"
	@echo "make pdf    the book as one PDF, and hand-outs (make handouts)        make slides   a deck of slides per chapter"
	@echo "make unit   tests without chapters and pages (seconds)                make pair     bring notebooks and scripts in step"
	@echo "make lint   code style                                                make student  chapters without solutions"
	@echo "make serve  the built book over http                                  make lock     write constraints.txt"
	@echo "make gpu    the tests that need CUDA                                  make sheets   pictures of all figures, for review"

env: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if v >= (3, 11) else "the book needs Python 3.11 or newer; $(PYTHON) is %d.%d (choose another: make PYTHON=python3.12 book)" % v[:2])'
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet $(PIP_ARGS) -c constraints.txt -e ".[book,train,dev]"
	@touch $@

book: $(READY)
	@$(BOOKKIT) build

# The first three chapters, opened as soon as they are ready; the others follow, and the open pages can be reloaded.
quick: $(READY)
	@$(BOOKKIT) build --first 3 --open

# Printed by Chromium from the built site: the whole book and a hand-out per chapter, in book/_build/pdf.
pdf: $(READY)
	@$(BOOKKIT) pdf

handouts: $(READY)
	@$(BOOKKIT) pdf --handouts

# A deck per chapter, listed by part in book/_build/slides/index.html.
slides: $(READY)
	@$(BOOKKIT) slides

lab: $(READY)
	$(BIN)/jupyter lab --notebook-dir=. notebooks

# One run of pytest holds it all: unit tests, style, pairing, each chapter under nbmake, the strict build, the browser.
# Each file of tests goes to one of JOBS processes; those of the book's pages occupy one of them for most of the run.
test: $(READY)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(PY) -m mypy --cache-dir .cache/mypy
	$(PY) -m pytest -n $(JOBS) --no-loadscope-reorder --durations=15

unit: $(READY)
	$(PY) -m pytest -n $(JOBS) --no-loadscope-reorder -m "not book"

# On a machine with CUDA, in the environment that is active there (it need not be the book's).
gpu:
	PYTHONPATH=.:book $(PYTHON) -m pytest -m gpu

lint: $(READY)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(PY) -m mypy --cache-dir .cache/mypy

pair: $(READY)
	@$(BOOKKIT) pair

student: $(READY)
	@$(BOOKKIT) student

serve: $(READY)
	$(PY) -m http.server --bind 127.0.0.1 --directory book/_build/html 8000

# From a site that has been built: every figure at 1400 and 400 pixels, light and dark, in book/_build/sheets.
sheets: $(READY)
	@$(BOOKKIT) sheets

lock: $(READY)
	@$(BOOKKIT) lock

clean:
	rm -rf book/_build student build dist .pytest_cache .ruff_cache *.egg-info
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV) .cache
