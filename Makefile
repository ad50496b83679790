# make run: install what is missing and run the gateway; make test: install what the tests need and pass them all.
# Stamps depend on pyproject.toml and constraints.txt, so a second call installs nothing.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
# Most of a test's time is waiting for real processes, so three run on two cores. Each file runs in one, the long ones first.
SIDE_BY_SIDE := -n 3 --dist loadfile --no-loadscope-reorder
PIP := .venv/bin/python -m pip --quiet --disable-pip-version-check

# Real servers, each in an environment of its own.
REAL_SERVERS := llama mcp mcp-first synapse litellm bots senders node

.PHONY: run test explore test-clients test-real check bench peers clean
.DEFAULT_GOAL := run

run: .venv/.run
	@exec .venv/bin/python -m gateway

test: .venv/.test .venv/.browser .venv/.postgres .venv/.nginx
	@exec .venv/bin/python -m pytest $(SIDE_BY_SIDE)

# The property tests with other examples each time: what it finds becomes a case of a test.
explore: .venv/.test
	@exec .venv/bin/python -m pytest $(SIDE_BY_SIDE) -m hypothesis --hypothesis-profile=explore

# Foreign clients, unmodified, in an environment of their own, and a fuzzer over /openapi.json.
test-clients: .venv/.test .venv/clients/.made
	@exec .venv/bin/python -m tests.clients.run .venv/clients

# Against real servers that others wrote: models, MCP servers, a homeserver. One that cannot be installed is named, and its
# tests are skipped with a reason, but where CI is set they fail.
test-real: .venv/.test
	@$(MAKE) --no-print-directory --jobs 2 $(REAL_SERVERS:%=.venv-real/%/.made)
	@exec .venv/bin/python -m pytest tests/real

check: .venv/.test
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

# What people would use instead, for the benchmarks that compare with it: Celery, and Redis from Debian.
peers: .venv/.test
	@command -v redis-server >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends redis-server; } >/dev/null
	@test -x .venv-peers/bin/python || "$(PYTHON)" -m venv .venv-peers
	@.venv-peers/bin/python -m pip --quiet --disable-pip-version-check install -r loadtests/peers/requirements.txt

bench: .venv/.test
	@exec .venv/bin/python -m loadtests.bench

clean:
	rm -rf .venv .venv-real .venv-peers .mypy_cache .ruff_cache .pytest_cache .hypothesis

.venv/clients/.made: .venv/.made tests/clients/requirements.txt tests/clients/package.json
	@echo "installing the clients of others into .venv/clients"
	@command -v npm >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends nodejs npm; } >/dev/null
	@test -x .venv/clients/venv/bin/python || "$(PYTHON)" -m venv .venv/clients/venv
	@.venv/clients/venv/bin/python -m pip --quiet --disable-pip-version-check install -r tests/clients/requirements.txt
	@mkdir -p .venv/clients/node && cp tests/clients/package.json .venv/clients/node/ && \
	  npm install --prefix .venv/clients/node --no-audit --no-fund --no-package-lock --loglevel error
	@touch $@

.venv-real/node/.made: tests/real/package.json
	@echo "installing the servers of $< into $(@D)"
	@command -v npm >/dev/null && command -v git >/dev/null || \
	  { apt-get update -qq && apt-get install -y -qq --no-install-recommends nodejs npm git; } >/dev/null 2>&1 || true
	@mkdir -p $(@D) && cp $< $(@D)/ && \
	  npm install --prefix $(@D) --no-audit --no-fund --no-package-lock --loglevel error && touch $@ || \
	  echo "the servers of $< could not be installed: their tests will be skipped"

.venv-real/%/.made: tests/real/requirements/%.txt .venv/.made
	@echo "installing the servers of $< into $(@D)"
	@{ test -x $(@D)/bin/python || "$(PYTHON)" -m venv $(@D); } && \
	  $(@D)/bin/python -m pip --quiet --disable-pip-version-check install -r $< && touch $@ || \
	  echo "the servers of $< could not be installed: their tests will be skipped"

.venv/.made:
	@test -n "$(PYTHON)" || { echo "Gatehouse needs Python 3.11 or newer: install it, or call make with PYTHON=/path/to/python"; exit 2; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Gatehouse needs Python 3.11 or newer, and $(PYTHON) is older: call make with PYTHON=/path/to/python"; exit 2; }
	@"$(PYTHON)" -m venv .venv || { \
	  echo "python3-venv is missing: installing it"; rm -rf .venv; \
	  { apt-get update -qq && apt-get install -y -qq python3-venv; } >/dev/null && "$(PYTHON)" -m venv .venv; }
	@touch $@

.venv/.run: .venv/.made pyproject.toml constraints.txt
	@echo "installing Gatehouse into .venv: about 40 packages, a minute or two the first time"
	@.venv/bin/python -m pip --disable-pip-version-check install -c constraints.txt -e .
	@touch $@

.venv/.test: .venv/.made pyproject.toml constraints.txt
	@echo "installing Gatehouse and its tests into .venv: about 90 packages, some minutes the first time"
	@$(PIP) install -c constraints.txt -e '.[test]'
	@touch $@ .venv/.run

# Without a browser the browser tests are skipped with a reason, but where CI is set they fail.
.venv/.browser: .venv/.made
	@command -v chromium >/dev/null || { echo "installing Chromium for the browser tests"; \
	  { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; } >/dev/null 2>&1 || \
	  echo "Chromium could not be installed: the browser tests will be skipped"; }
	@touch $@

# Tests start the server themselves. Without it those of PostgreSQL are skipped with a reason, but where CI is set they fail.
.venv/.postgres: .venv/.made
	@ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 && command -v pgbouncer >/dev/null || { \
	  echo "installing PostgreSQL for the tests"; \
	  { apt-get update -qq && apt-get install -y -qq --no-install-recommends postgresql pgbouncer; } >/dev/null 2>&1 || \
	  echo "PostgreSQL could not be installed: its tests will be skipped"; }
	@touch $@

# Without a proxy its test is skipped with a reason, but where CI is set it fails.
.venv/.nginx: .venv/.made
	@command -v nginx >/dev/null || { echo "installing nginx for the test of a reverse proxy"; \
	  { apt-get update -qq && apt-get install -y -qq --no-install-recommends nginx-light; } >/dev/null 2>&1 || \
	  echo "nginx could not be installed: its test will be skipped"; }
	@touch $@
