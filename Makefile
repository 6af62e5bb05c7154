# Everything asks for nothing but Rust, gcc and make; what else is needed is installed from Debian, or named.

# `make run`: the port of the edge, the four ports of the backends, the address of the control listener, the configuration, and
# the Redis that replaces the configuration's ledger.
PORT ?= 80
BACKENDS ?= 3001-3004
CONTROL ?= 127.0.0.1:9180
CONFIG ?= conf/spikegate.yaml
REDIS ?=

# One row of `make bench` (refuse-keepalive, refuse-close, sell, mix, proxy-small, proxy-large, idle-memory, crowd, tail) or
# all; the row of `make profile`; the number of rounds, and the duration of each in seconds.
ROW ?=
ROUNDS ?= 5
SECONDS ?= 4

# Of `make bench-smoke`: the folder of the binaries, or a release build.
PRODUCT ?=

# Of `make torture`: one schedule (k1, n2, x1, ...) or all; a seed, or a new one each time.
SCHEDULE ?=
SEED ?=

# Of `make fuzz`: one target (chunked, config, forwarded, head, journal, jwt, proxy_header, reply, request) or all.
TARGET ?=

# How often `make bench-designs` measures, and how many tickets are sold each time.
DESIGN_ROUNDS ?= 3
TICKETS ?= 10000

# Where cargo builds, and what `make install` takes from there.
BUILT := $(or $(CARGO_TARGET_DIR),target)
BINARIES ?= $(BUILT)/release

# Where `make install` puts things; DESTDIR is put before all of them, for those who make packages.
PREFIX ?= /usr/local
SYSCONFDIR ?= /etc
DESTDIR ?=

# The tag of `make image`; KEEP=1 leaves the images of `make image-test` and what they were built on.
TAG ?= latest
KEEP ?=

# rustup puts cargo where only login shells look for it, and nginx is where only administrators do.
export PATH := $(PATH):$(HOME)/.cargo/bin:/usr/sbin

.PHONY: help run build dist dist-test install uninstall test torture mutants fuzz image image-test bench bench-smoke bench-designs profile \
	bench-tools bench-stores clean

help: ## prints this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

run: ## starts four backends and the edge: PORT=8080 BACKENDS=13001-13004 CONTROL=127.0.0.1:19180 REDIS=redis://127.0.0.1:6379 CONFIG=file
	@scripts/need cmake
	cargo build --release --workspace
	@exec scripts/run --port '$(PORT)' --backends '$(BACKENDS)' --control '$(CONTROL)' --config '$(CONFIG)' \
		--redis '$(REDIS)' --binaries '$(BUILT)/release'

build: ## builds the edge and the order service
	@scripts/need cmake
	cargo build --release --workspace

dist: ## packages the release binaries: a Debian package and a tarball in target/dist
	@scripts/need cmake dpkg-shlibdeps
	cargo build --release --workspace
	@scripts/dist --binaries '$(BUILT)/release' --output '$(BUILT)/dist'

dist-test: dist ## installs the Debian package into an empty root, sells a ticket from it, and removes it; needs root
	@scripts/need curl
	@scripts/dist-test '$(BUILT)'/dist/spikegate_*.deb

# What is installed below PREFIX, besides the manual pages.
INSTALLED = bin/spikegate bin/spikegate-orders lib/systemd/system/spikegate.service lib/systemd/system/spikegate-orders@.service \
	lib/sysusers.d/spikegate.conf share/bash-completion/completions/spikegate share/zsh/site-functions/_spikegate \
	share/fish/vendor_completions.d/spikegate.fish share/doc/spikegate/LICENSE share/doc/spikegate/spikegate.schema.json \
	$(addprefix share/doc/spikegate/,configuration.md coming-from-nginx.md admission.md metrics.md webhook.md) \
	share/spikegate/spikegate.rules.yaml share/spikegate/spikegate.rules.test.yaml share/spikegate/spikegate.json \
	share/spikegate/spikegate.logrotate

install: ## installs what `make build` built, with units, manual pages and completions; PREFIX=/usr/local and DESTDIR= change where
	@scripts/install --binaries '$(BINARIES)' --prefix '$(PREFIX)' --sysconfdir '$(SYSCONFDIR)' --destdir '$(DESTDIR)'

uninstall: ## removes what `make install` installed; settings and what was sold stay
	rm -f $(addprefix '$(DESTDIR)$(PREFIX)'/,$(INSTALLED)) '$(DESTDIR)$(PREFIX)'/share/man/man1/spikegate.1 \
		'$(DESTDIR)$(PREFIX)'/share/man/man1/spikegate-*.1

test: ## checks the formatting, lints, runs all tests, and each benchmark row for a second
	@scripts/need cmake git g++ dpkg-shlibdeps curl redis-server ab openssl postgresql chromium chromedriver prometheus wrk nginx \
		nginx-lua shellcheck luacheck cargo-deny
	cargo build --workspace
	@failed=; \
	scripts/lint || failed="$$failed lint"; \
	echo "cargo test --workspace --no-fail-fast"; cargo test --workspace --no-fail-fast || failed="$$failed tests"; \
	CARGO_TARGET_DIR='$(BUILT)/bench' cargo test --manifest-path bench/Cargo.toml --workspace --no-fail-fast || \
		failed="$$failed bench-tests"; \
	$(MAKE) --no-print-directory bench-smoke PRODUCT='$(BUILT)/debug' || failed="$$failed bench-smoke"; \
	[ -z "$$failed" ] || { echo "At fault, see above:$$failed"; exit 1; }

torture: SECONDS = 20
torture: ## breaks everything while a crowd buys, and checks that nothing is lost: SCHEDULE=n1 SEED=7 SECONDS=60
	@scripts/need cmake redis-server
	cargo build --workspace
	TORTURE_SEED=$(or $(SEED),$(shell date +%s)) TORTURE_SECONDS='$(SECONDS)' \
		cargo test --workspace --test integration -- 'torture::$(SCHEDULE)' 'torture::by_hand::$(SCHEDULE)' --nocapture --test-threads=1

mutants: ## shows that the tests bite: builds known faults in, one at a time, and each has to be caught; PART=sweep for one
	@scripts/need cmake git redis-server
	@scripts/mutants $(PART)

fuzz: SECONDS = 60
fuzz: ## feeds whatever comes to mind to what reads others' bytes, guided by coverage: TARGET=head SECONDS=300
	@scripts/need cmake g++
	@scripts/fuzz '$(SECONDS)' $(TARGET)

image: ## builds the images spikegate and spikegate-orders with Docker; TAG=latest
	@scripts/image '$(TAG)'

image-test: ## builds the images, and tries them with docker and compose; KEEP=1 keeps them
	@scripts/need ab curl
	@scripts/image-test $(if $(KEEP),--keep)

bench: bench-tools ## measures the edge beside its peers, in about ten minutes; ROW=sell, ROUNDS=3 and SECONDS=2 for less
	@scripts/need cmake nginx nginx-lua redis-server wrk ab
	cargo build --release
	@$(BUILT)/bench/release/suite bench --bench bench --product '$(BUILT)/release' \
		--rounds '$(ROUNDS)' --seconds '$(SECONDS)' $(if $(ROW),--row '$(ROW)')

bench-smoke: bench-tools ## runs each benchmark row for a second to see whether it works; writes no results; PRODUCT=target/debug
	@scripts/need cmake nginx nginx-lua redis-server wrk ab
	$(if $(PRODUCT),,cargo build --release)
	@$(BUILT)/bench/release/suite bench --bench bench --product '$(or $(PRODUCT),$(BUILT)/release)' --smoke \
		$(if $(ROW),--row '$(ROW)')

bench-designs: bench-tools ## measures three designs of selling side by side, in about five minutes; writes docs/internals/designs.md
	@scripts/need cmake redis-server postgresql
	cargo build --release --workspace
	@$(BUILT)/bench/release/suite designs --bench bench --product '$(BUILT)/release' --docs docs/internals \
		--rounds '$(DESIGN_ROUNDS)' --tickets '$(TICKETS)'

profile: bench-tools ## leaves a flame graph of the edge under one workload: ROW=refuse-keepalive
	@scripts/need cmake nginx nginx-lua redis-server wrk ab perf
	cargo build --release
	@$(BUILT)/bench/release/suite profile --bench bench --product '$(BUILT)/release' \
		--row '$(or $(ROW),refuse-keepalive)' --seconds '$(SECONDS)'

bench-tools:
	CARGO_TARGET_DIR='$(BUILT)/bench' cargo build --release --manifest-path bench/Cargo.toml

bench-stores: ## measures embedded stores at the ledger's job, in about six minutes
	@scripts/need strace
	cd bench/stores && cargo run --release

clean: ## removes what was built; what was sold stays
	cargo clean
	cd bench/stores && cargo clean
