# Everything asks for nothing but Rust, gcc and make; what else is needed is installed from Debian, or named.

# Where `make run` listens, what it is configured by, and the Redis that it sells from instead of the file's ledger.
PORT ?= 80
CONFIG ?= conf/spikegate.yaml
REDIS ?=

# One workload of `make bench` (a to h, or tail) or all; the workload of `make profile`; how often and how long.
ROW ?=
ROUNDS ?= 5
SECONDS ?= 4

# Where cargo builds.
BUILT := $(or $(CARGO_TARGET_DIR),target)

# rustup puts cargo where only login shells look for it, and nginx is where only administrators do.
export PATH := $(PATH):$(HOME)/.cargo/bin:/usr/sbin

.PHONY: help run test bench profile bench-tools bench-stores clean

help: ## prints this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

run: ## starts four backends and the edge; PORT=8080, REDIS=redis://127.0.0.1:6379 and CONFIG=file change how
	@scripts/need cmake
	cargo build --release --workspace
	@exec scripts/run --port '$(PORT)' --config '$(CONFIG)' --redis '$(REDIS)'

test: ## checks the formatting, lints, and runs all tests
	@scripts/need cmake redis-server ab postgresql chromium chromedriver
	cargo build --workspace
	@scripts/lint; lint=$$?; \
	echo "cargo test --workspace --no-fail-fast"; cargo test --workspace --no-fail-fast && \
	{ [ $$lint -eq 0 ] || { echo "The tests passed, but formatting or lints are at fault: see above."; exit 1; }; }

bench: bench-tools ## measures the edge beside its peers, in about ten minutes; ROW=a, ROUNDS=3 and SECONDS=2 for less
	@scripts/need cmake nginx nginx-lua redis-server wrk ab
	cargo build --release
	@$(BUILT)/bench/release/suite bench --bench bench --product '$(BUILT)/release' \
		--rounds '$(ROUNDS)' --seconds '$(SECONDS)' $(if $(ROW),--row '$(ROW)')

profile: bench-tools ## leaves a flame graph of the edge under one workload: ROW=a
	@scripts/need cmake nginx nginx-lua redis-server wrk ab perf
	cargo build --release
	@$(BUILT)/bench/release/suite profile --bench bench --product '$(BUILT)/release' \
		--row '$(or $(ROW),a)' --seconds '$(SECONDS)'

bench-tools:
	CARGO_TARGET_DIR='$(BUILT)/bench' cargo build --release --manifest-path bench/Cargo.toml

bench-stores: ## measures embedded stores at the ledger's job, in about six minutes
	@scripts/need strace
	cd bench/stores && cargo run --release

clean: ## removes what was built; what was sold stays
	cargo clean
	cd bench/stores && cargo clean
