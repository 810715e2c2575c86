# make demo   the main job on this machine: a real cluster, a real VM, a Service answered
# make test   every test; the first run builds Kubernetes and an image, later ones are quick
# make check  ruff, mypy, import-linter
# make winhost  an emulated Windows host beside a lab, until Ctrl-C; it says how to use it
# make bench  the benchmarks; docs/performance.md says how to read them
# make versions  the unit tests with the lowest versions that pyproject.toml allows, and with the newest on Python 3.13
# make clean  take the labs down and remove what was cached
SHELL := /bin/bash
.ONESHELL:
.SHELLFLAGS := -euo pipefail -c
.PHONY: demo test check winhost bench versions clean

as_root = $(if $(filter 0,$(shell id -u)),,sudo -E)

demo:
	venv=$$(scripts/prepare run)
	$(as_root) "$$venv/bin/vmproxy" demo

test:
	venv=$$(scripts/prepare dev)
	$(as_root) "$$venv/bin/python" -m tests.$(if $(ARGS),winhost.standin,prepare)
	$(as_root) "$$venv/bin/pytest" $(ARGS)

check:
	venv=$$(scripts/prepare dev)
	PATH="$$venv/bin:$$PATH"
	ruff check .
	ruff format --check .
	mypy
	mypy --python-version 3.10 templates/guest  # the oldest that mypy knows; the guest's may be 3.9
	lint-imports

winhost:
	venv=$$(scripts/prepare dev)
	$(as_root) "$$venv/bin/vmproxy" lab up
	$(as_root) "$$venv/bin/python" -m tests.winhost --lab lab

bench:
	venv=$$(scripts/prepare dev)
	$(as_root) "$$venv/bin/python" -m bench $(ARGS)

versions:
	scripts/versions lowest 3.11
	scripts/versions newest 3.13

clean:
	venv=$$(scripts/prepare run)
	for lab in lab demo bench benchwin; do $(as_root) "$$venv/bin/vmproxy" lab down --name $$lab; done
	$(as_root) rm -rf "$${XDG_CACHE_HOME:-$$HOME/.cache}/vmproxy"
