# What can be done with this tree. `make` alone lists it.
#
# Everything builds with cargo alone; nothing is installed on the machine, and what the tests fetch
# (Debian's prometheus package) is unpacked below target/.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:

# A toolchain without clippy or rustfmt must not begin a download in the middle of a build; the
# targets that need them say so themselves.
export RUSTUP_AUTO_INSTALL ?= 0
# Both are taken from the environment or from the command line, see tests/fetch-prometheus.
export PROMETHEUS PROMTOOL
# `make demo KEEP=1` leaves everything running.
export KEEP
# Most integration tests wait most of the time, so more of them run than there are cores.
export RUST_TEST_THREADS ?= 8

step = @printf '\n==> %s\n' "$(1)"
# Whether a cargo subcommand of the toolchain is there, and how to say that it is not.
has = cargo $(1) --version >/dev/null 2>&1
left_out = mkdir -p target && echo "LEFT OUT: $(1)" | tee -a target/left-out >&2

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build the release binary, target/release/outrigger
	cargo build --release --locked

# Needs dpkg-deb and readelf; `cargo deb`, after `make documents`, makes the same package.
.PHONY: deb
deb: build ## Build the Debian package, target/debian/outrigger_*.deb
	@cargo run --quiet --locked --example package -- deb target/release/outrigger target/debian

.PHONY: documents
documents: ## Write manual pages and completions below target/packages
	cargo run --quiet --locked --example package -- documents target/packages

.PHONY: demo
demo: build ## Ship real blocks of a real Prometheus to a bucket and compare (KEEP=1 leaves it running)
	@tests/demo

.PHONY: test
test: left-out-reset fmt-check lint docs prometheus ## Everything a change must pass: format, lints, docs, all tests
	$(call step,tidy: layers$(,) names$(,) lengths$(,) layout)
	cargo test --locked --all-features --test tidy
	$(call step,tests: unit$(,) property$(,) integration$(,) documentation)
	cargo test --locked --all-features --no-fail-fast 2>&1 | tee target/test.log
	@$(MAKE) --no-print-directory test-io
	$(call step,benches$(,) each run once)
	@if compgen -G 'benches/*.rs' >/dev/null; then \
	  cargo test --locked --all-features --bench '*' 2>&1 | tee -a target/test.log; \
	else echo 'no benches'; fi
	$(call step,totals)
	@$(totals) target/test.log
	@{ cat target/left-out 2>/dev/null; grep -h 'LEFT OUT' target/test.log; } || true

# The tests of whatever reads files, once more for each other way to do it: all tests use io_uring
# where it works, and most containers forbid it.
IO_TESTS := disk:: objstore:: shipper:: shipping:: s3:: shutdown:: ledger::
io_tests = cargo test --locked --all-features --no-fail-fast --lib --test it -- $(IO_TESTS) 2>&1 \
  | tee -a target/test.log
runner_variable = CARGO_TARGET_$$(rustc -vV | awk '/^host:/ { print toupper($$2) }' | tr - _)_RUNNER

.PHONY: test-io
test-io: prometheus ## Disk, buckets, shipping: without io_uring, and where a filter forbids it
	$(call step,disk$(,) buckets$(,) shipping: blocking calls)
	OUTRIGGER_TEST_IO=pread $(io_tests)
	$(call step,disk$(,) buckets$(,) shipping: io_uring and cachestat forbidden by seccomp)
	cargo build --locked --all-features --example under-seccomp
	export "$(runner_variable)=$(CURDIR)/target/debug/examples/under-seccomp --deny=cachestat"; \
	  OUTRIGGER_TEST_IO=auto $(io_tests)

# Adds up the lines in which cargo test tells its results.
totals = awk '/^test result:/ { n++; passed += $$4; failed += $$6; ignored += $$8 } \
  END { printf "%d test binaries: %d passed, %d failed, %d ignored\n", n, passed, failed, ignored; \
        exit n == 0 || failed > 0 }'
, := ,

.PHONY: test-long
test-long: prometheus ## The long forms: exhaustive and ignored tests, more seeds, miri
	$(call step,ignored tests: exhaustive forms)
	cargo test --locked --release --all-features -- --ignored
	$(call step,property tests with more cases)
	PROPTEST_CASES=$${PROPTEST_CASES:-20000} cargo test --locked --release --all-features --lib
	@$(MAKE) --no-print-directory miri

# A few cases of each property, and sizes that the tests choose for miri themselves: some minutes.
# The toolchain that is the default stays the default.
MIRI_TESTS := model:: tsdb::
.PHONY: miri
miri: ## The pure modules under miri, whose toolchain is installed if rustup can (MIRI_TESTS=)
	$(call step,miri: $(MIRI_TESTS))
	@cargo +nightly miri --version >/dev/null 2>&1 \
	  || rustup toolchain install nightly --profile minimal --component miri,rust-src || true; \
	if cargo +nightly miri --version >/dev/null 2>&1; then \
	  PROPTEST_CASES=4 MIRIFLAGS=-Zmiri-disable-isolation \
	    cargo +nightly miri test --locked --lib -- $(MIRI_TESTS) --skip shipper::; \
	else $(call left_out,miri (rustup toolchain install nightly --component miri$(,)rust-src)); fi

.PHONY: fuzz-smoke
fuzz-smoke: ## Run each fuzz target for FUZZ_SECONDS (60), or replay the corpora without cargo-fuzz
	@if ! compgen -G 'fuzz/fuzz_targets/*.rs' >/dev/null; then echo 'no fuzz targets'; exit 0; fi; \
	if cargo +nightly fuzz --version >/dev/null 2>&1; then \
	  for target in $$(cargo +nightly fuzz list); do \
	    printf '\n==> fuzz %s\n' "$$target"; \
	    cargo +nightly fuzz run "$$target" -- -max_total_time=$${FUZZ_SECONDS:-60}; \
	  done; \
	else \
	  $(call left_out,fuzzing (rustup toolchain install nightly && cargo install cargo-fuzz)); \
	  echo 'replaying the corpora instead'; \
	  cargo test --locked --all-features --lib -- corpus 2>&1 | tee target/fuzz-smoke.log; \
	  if ! grep -q '^test result: ok. [1-9]' target/fuzz-smoke.log; then \
	    echo 'no test replayed a corpus' >&2; exit 1; \
	  fi; \
	fi

.PHONY: bench
bench: ## Run the benches
	cargo bench --locked --all-features

.PHONY: bench-instructions
bench-instructions: ## Count the instructions of the benches of the read path (needs valgrind)
	@perf/instructions

# The product without the features that the harness needs, so that what is measured is what is run.
.PHONY: perf
perf: ## Measure the release binary: S3, FILESYSTEM, latency, start (PERF_GIB=3 PERF_ROUNDS=3 PERF_ONLY= INCUMBENT=)
	cargo build --release --locked --bin outrigger
	@mkdir -p target/perf && cp target/release/outrigger target/perf/outrigger
	cargo build --release --locked --features testing --example perf
	@exec target/release/examples/perf target/perf/outrigger

.PHONY: fmt
fmt: ## Format the sources
	cargo fmt --all

.PHONY: fmt-check
fmt-check:
	$(call step,format)
	@if $(call has,fmt); then cargo fmt --all --check; \
	else $(call left_out,the format check (rustup component add rustfmt)); fi

.PHONY: lint
lint: ## Clippy over all targets, warnings are errors
	$(call step,clippy)
	@if $(call has,clippy); then \
	  cargo clippy --locked --all-targets --all-features -- -D warnings; \
	  cargo clippy --locked -- -D warnings; \
	else $(call left_out,clippy (rustup component add clippy)); fi

.PHONY: docs
docs: ## Build the documentation, warnings are errors
	$(call step,documentation)
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps --all-features

.PHONY: prometheus
prometheus: ## Fetch the Prometheus that the tests and the demo run against
	$(call step,prometheus and promtool)
	@tests/fetch-prometheus

.PHONY: left-out-reset
left-out-reset:
	@rm -f target/left-out

.PHONY: clean
clean: ## Remove what was built and fetched
	cargo clean
