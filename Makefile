# The whole life of a checkout: `make run` shows Flames at work, `make test` proves it, `make check` is for before a commit.
#
# What is built lies in a cache outside the checkout (FLAMES_CACHE, default ~/.cache/flames) and is built once per hash
# of its inputs; build/ of the checkout holds links to it.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

FLAMES_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/flames
CARGO_TARGET_DIR ?= $(FLAMES_CACHE)/target
FLAMES_ASSETS ?= $(CURDIR)/build/assets
export FLAMES_CACHE CARGO_TARGET_DIR FLAMES_ASSETS

flames := $(CARGO_TARGET_DIR)/release/flames
phase := scripts/phase.sh

# What `run` runs, and where.
TEMPLATE ?= mini
CMD ?= uname -a
# How many boots `bench` measures.
N ?= 20

# In CI nothing may be skipped for want of a tool; elsewhere a missing tool skips its tests with a loud line.
ifeq ($(CI),true)
export FLAMES_REQUIRE ?= assets,root,qemu,postgres,redis,nats,caddy,s3,e2b-clients
endif

.PHONY: help run test test-newest check bench assets code-interpreter deps clean release

help: ## what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' Makefile

run: ## install and build what is missing, then run a command in a microVM (TEMPLATE=mini CMD='uname -a')
	@scripts/install-deps.sh run build
	@guest/kernel/build.sh
	@guest/images/build-image.sh $(TEMPLATE)
	@guest/images/build-agent.sh
	@$(MAKE) --no-print-directory release
	@$(flames) run --template $(TEMPLATE) --timings -- $(CMD)

test: ## all tests, those that boot microVMs and need servers included
	@$(phase) dependencies scripts/install-deps.sh
	@$(phase) assets $(MAKE) --no-print-directory assets
	@$(phase) code-interpreter $(MAKE) --no-print-directory code-interpreter || echo 'the image code-interpreter-v1 could not be built: its tests are skipped, or fail in CI'
	@$(phase) clients scripts/install-clients.sh || echo 'the clients of E2B could not be installed: their tests are skipped, or fail in CI'
	@scripts/run-tests.sh

test-newest: assets code-interpreter ## the tests of E2B's clients, with the newest of them instead of the pinned ones
	@FLAMES_CLIENTS=newest scripts/install-clients.sh
	@FLAMES_CLIENTS=newest cargo nextest run -p flames --test cli -E 'test(/^e2b::/)'

check: ## format, lints, documentation, architecture: before a commit
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --quiet
	cargo test -p flames --test architecture --quiet

bench: assets release ## boot times per stage (N=20 TEMPLATE=mini)
	$(flames) bench boot -n $(N) --template $(TEMPLATE)

assets: ## guest kernel, agent and images
	@guest/kernel/build.sh
	@guest/images/build-image.sh mini
	@guest/images/build-image.sh base
	@guest/images/build-agent.sh

code-interpreter: ## the image that E2B's code interpreter clients ask for (needs PyPI once)
	@guest/images/build-image.sh code-interpreter-v1

deps: ## the Debian packages that are missing
	@scripts/install-deps.sh

release:
	@cargo build --release --quiet -p flames

clean: ## remove build/; with CACHE=1 the kernel, images and compiled crates of the cache too
	rm -rf build
ifeq ($(CACHE),1)
	rm -rf "$(FLAMES_CACHE)"/{kernel,images,agent,target,locks}
endif
