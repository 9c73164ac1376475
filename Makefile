# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
#
#   make demo    plays the shipped sequence through the node into demo_out/
#   make test    runs the tests against the installed package, and tells what they cover
#   make lint    ruff and mypy
#   make docs    writes the reference of modules, classes and functions into build/api/
#
# Each sets up what it needs: in .venv with ROS 2 Jazzy, or with ROS=kilted in .venv-kilted.

ROS ?= jazzy
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv$(if $(filter-out jazzy,$(ROS)),-$(ROS))
OTHER := $(filter-out $(ROS),jazzy kilted)
OUT ?= demo_out
TESTS ?= test
STAMP := $(VENV)/.installed
LINT_STAMP := $(VENV)/.installed-lint
DOCS_STAMP := $(VENV)/.installed-docs

# What the installed package is made from: a change here installs it again.
SOURCES := CMakeLists.txt build_backend.py constraints.txt package.xml pyproject.toml setup.py \
  $(wildcard README.md) \
  $(shell find adamtl_ros config launch msg -type f ! -path '*/__pycache__/*' 2>/dev/null)

# The commands come from the environment, never from the folder we are in.
export PYTHONSAFEPATH := 1
# Those of another environment that this shell may have started in.
unexport _ROS_WHEELS_BOOTSTRAP_COMPLETE
unexport PYTHONPATH
unexport AMENT_PREFIX_PATH
unexport LD_LIBRARY_PATH

.PHONY: all demo test lint docs clean check

all: test

demo: $(STAMP)
	$(VENV)/bin/adamtl demo --out $(OUT) $(ARGS)

test: $(STAMP)
	$(VENV)/bin/pytest -n 2 --dist loadfile --cov --cov-report=term:skip-covered $(TESTS) $(ARGS)

lint: $(LINT_STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

docs: $(DOCS_STAMP)
	$(VENV)/bin/python -W error::UserWarning -m pdoc -o build/api adamtl_ros '!adamtl_ros.msg'

clean:
	rm -rf .venv .venv-kilted

check:
	@case '$(ROS)' in jazzy|kilted) ;; *) \
	  echo "ROS=$(ROS) is not known: use ROS=jazzy (default) or ROS=kilted" >&2; exit 1;; esac
	@! ls -d $(VENV)/lib/python*/site-packages/ros_$(OTHER)_rclpy-* >/dev/null 2>&1 || { \
	  echo '$(VENV) holds ROS 2 $(OTHER), and only one fits into an environment: move it away,' \
	    'or make clean' >&2; exit 1; }
	@test -n '$(PYTHON)' || { \
	  echo 'Python is missing: sudo apt-get install python3 python3-venv' >&2; exit 1; }
	@'$(PYTHON)' -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo '$(PYTHON) is older than Python 3.10: install a newer one and name it,' \
	    'make PYTHON=/usr/bin/python3.11' >&2; exit 1; }
	@'$(PYTHON)' -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo '$(PYTHON) cannot make virtual environments: sudo apt-get install python3-venv' >&2; \
	  exit 1; }
	@'$(PYTHON)' -c 'import os, sys, sysconfig as s; sys.exit( \
	  not os.path.exists(os.path.join(s.get_path("include"), "Python.h")))' || { \
	  echo "The headers of $(PYTHON) for the ROS messages are missing:" \
	    'sudo apt-get install python3-dev' >&2; exit 1; }
	@command -v $(firstword $(if $(filter default,$(origin CXX)),g++,$(CXX))) >/dev/null || { \
	  echo 'The C++ compiler for the ROS messages is missing: sudo apt-get install g++' >&2; \
	  exit 1; }

$(STAMP): $(SOURCES) | check
	@echo 'Installing into $(VENV); the first time takes some minutes.'
	test -x $(VENV)/bin/pip || '$(PYTHON)' -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt \
	  '.[$(ROS),openvino,test]'
	touch $@

$(LINT_STAMP): $(STAMP)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt \
	  mypy ruff types-PyYAML types-setuptools
	touch $@

$(DOCS_STAMP): $(STAMP)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt pdoc
	touch $@
