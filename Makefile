# Everything runs from a virtualenv in .venv, never as root by need, and never from a checkout's absolute path: make
# splits $(CURDIR) at spaces. Programs of the virtualenv are called as `python -m`, since a space in a script's first
# line breaks it.
#
#   make test                          lint, types, tests
#   make test ARGS="-k registry -x"    options for pytest
#   make test JOBS=0                   one test after the other
#   make test PYTHON=python3.12        another Python than python3
#   make demo                          real data into a store, and reads of it, measured
#   make demo BACKEND=rocksdb          the same on another backend: sqlite, duckdb, memory
#   make faults                        the tests of faults in their full form, and their table in docs/reliability.md:
#                                      hours
#   make faults BACKEND=rocksdb        the same of another backend, with a table of its own
#   make faults TRANSPORT=kafka        those of brokers and of what goes through them
#   make faults ARGS="--only threads"  one of them: its lines of the table alone
#   make kit                           put small faults into the plugins and write down which tests of the kit find each:
#                                      half an hour
#   make reference                     write again what docs/ has from the code
#   make proto                         compile the wire schema again
#   make clean

PYTHON = python3
ARGS =
BACKEND = lmdb
TRANSPORT =
# Most of a test is waiting: for a disk, a process, a moment. So there are more at a time than this machine's processors.
# A file goes to one process; in the order of their names the slow ones (docs, examples, faults) come first.
JOBS = 3

PY = .venv/bin/python

# Only the owner of the checkout keeps caches in it: neither root's nor another user's files get in the owner's way, and
# nobody needs to write where they cannot.
ifneq ($(shell test -O . && echo owner),owner)
export MYPY_CACHE_DIR = /dev/null
export RUFF_NO_CACHE = true
export PYTHONDONTWRITEBYTECODE = 1
export HYPOTHESIS_STORAGE_DIRECTORY = .venv/hypothesis
export PYTEST_ADDOPTS := $(PYTEST_ADDOPTS) -p no:cacheprovider -W "ignore:The database setting is not configured"
endif

.PHONY: test venv lint types pytest demo faults kit reference proto clean

test: lint types pytest

# The script decides by content, not by age, whether there is anything to install.
venv:
	@scripts/make-venv.sh "$(PYTHON)"

lint: venv
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

types: venv lint
	$(PY) -m mypy

# Last, so that the last lines say what did not run.
pytest: venv types
	$(PY) -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

demo: venv
	$(PY) examples/flights/demo.py --backend $(BACKEND)

faults: venv
	$(if $(TRANSPORT),PYTHONPATH=tests/faults $(PY) -m $(TRANSPORT)_faults,\
		$(PY) -m ikvcore.testing.faults --backend $(BACKEND)) --full --table docs/reliability.md $(ARGS)

kit: venv
	$(PY) tests/kit/kit_matrix.py $(ARGS)

reference: venv
	$(PY) scripts/cli_reference.py
	$(PY) scripts/conformance_reference.py
	$(PY) scripts/seeded_faults.py

proto: venv
	$(PY) -m grpc_tools.protoc -I ikvcore/_proto --descriptor_set_out=ikvcore/_proto/ikvschemas.binpb \
		ikvschemas.proto outline.proto

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
