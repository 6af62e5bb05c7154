# Everything asks for nothing but Rust, gcc and make; what else is needed is installed from Debian, or named.

# Where `make run` listens, what it is configured by, and the Redis that it sells from instead of the file's ledger.
PORT ?= 80
CONFIG ?= conf/spikegate.yaml
REDIS ?=

# rustup puts cargo where only login shells look for it.
export PATH := $(PATH):$(HOME)/.cargo/bin

.PHONY: help run test bench-stores clean

help: ## prints this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

run: ## starts four backends and the edge; PORT=8080, REDIS=redis://127.0.0.1:6379 and CONFIG=file change how
	@scripts/need cmake
	cargo build --release --workspace
	@exec scripts/run --port '$(PORT)' --config '$(CONFIG)' --redis '$(REDIS)'

test: ## checks the formatting, lints, and runs all tests
	@scripts/need cmake redis-server ab
	cargo build --workspace
	@scripts/lint; lint=$$?; \
	echo "cargo test --workspace --no-fail-fast"; cargo test --workspace --no-fail-fast && \
	{ [ $$lint -eq 0 ] || { echo "The tests passed, but formatting or lints are at fault: see above."; exit 1; }; }

bench-stores: ## measures embedded stores at the ledger's job, in about six minutes
	@scripts/need strace
	cd bench/stores && cargo run --release

clean: ## removes what was built; what was sold stays
	cargo clean
	cd bench/stores && cargo clean
