# What can be done here; `make` alone lists it. Each target installs what this machine lacks for it.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# The targets share one build directory and one machine: side by side they would only wait for each other.
.NOTPARALLEL:

# Where rustup and the vendors' Puppet packages put their programs.
export PATH := $(HOME)/.cargo/bin:$(PATH):/opt/puppetlabs/bin

.PHONY: help setup build test quick unit docs demo demo-fleet fleet etcd sim faults fuzz bench exported lint packages packages-test guide module repository clean

help: ## List the targets
	@echo 'usage: make TARGET'
	@echo
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

demo: BACKEND ?= hub
demo: ## See it work: three nodes that run Puppet when a fourth notifies (BACKEND=etcd for etcd)
	@demo/run $(BACKEND)

demo-fleet: ## See it on machines in Docker, and nothing else: a hub, a web server, two balancers (KEEP=1 leaves them)
	@demo/run-fleet

test: ## Run everything: lints, unit and conformance tests, Puppet specs, end to end
	@scripts/setup test
	@scripts/test

quick: ## Run what needs no server: under a minute once built
	@scripts/setup quick
	@scripts/test quick

unit: ## Run the Rust tests that need no Puppet
	@scripts/setup quick etcd
	@cargo nextest run --locked --workspace --exclude trigger-e2e

docs: ## Build the documentation of the crates: target/doc
	@scripts/setup build
	@RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace --no-deps --document-private-items

lint: ## Check formatting, lints, documentation, dependencies, import cycles and scripts
	@scripts/setup test
	@scripts/test lint

sim: SEEDS ?= 1000
sim: ## Simulate a fleet with faults, one for each of SEEDS seeds from FROM on; SEED=N replays one
	@scripts/setup build
	@cargo run --locked --quiet --profile sim -p trigger-sim -- \
	  $(if $(SEED),--seed $(SEED) --trace,--seeds $(SEEDS) $(if $(FROM),--from $(FROM)))

etcd: ## Run the conformance tests and the attacks on the etcd of Debian 12 and on that of Debian 13
	@scripts/setup test
	@scripts/test etcd

faults: BACKEND ?= both
faults: BUDGET ?= 5m
faults: ## Kill, cut and pause twenty real agents and their backend, then prove the contract (BUDGET, SEED, BACKEND, PLAIN)
	@scripts/setup faults
	@cargo run --locked --quiet -p trigger-faults -- \
	  --backend $(BACKEND) --budget $(BUDGET) $(if $(SEED),--seed $(SEED)) $(if $(PLAIN),--plain)

fuzz: FOR ?= 60
fuzz: ## Feed every decoder with mutated input, each FOR so many seconds (TARGET for one of them)
	@scripts/setup fuzz
	@testing/fuzz/run $(FOR) $(TARGET)

bench: ## Measure latency, bursts, fan-out and memory beside the original's loop
	@scripts/setup bench
	@testing/bench/run

exported: ## Count the runs that lack what another node exports, with a Puppet server and a PuppetDB that is late
	@scripts/setup machines
	@testing/exported/run

build: ## Build the optimised program: target/release/trigger
	@scripts/setup build
	@cargo build --locked --release -p trigger

packages: ## Build the packages for Debian and for Red Hat's family: target/packages (TRIGGER_BINARY, MAINTAINER)
	@scripts/setup packages
	@packaging/build

module: ## Make the Puppet module's archive as the Forge takes it: target/packages
	@packaging/module

repository: ## Make a signed apt repository of the packages: target/repository (KEY: a key of gpg)
	@scripts/setup packages
	@packaging/repository '$(KEY)'

packages-test: ## Install, upgrade and purge the packages, and apply the module, on a machine in Docker
	@scripts/setup machines
	@packaging/test-on-machines
	@packaging/test-module-on-machines

guide: ## Type the commands of the operators' guide on machines in Docker (PAGE for one page)
	@scripts/setup machines
	@testing/guide/run $(PAGE)

fleet: ## A site of machines in Docker: Puppet server, PuppetDB, balancers, web servers; and machines without a server
	@scripts/setup machines
	@testing/fleet/run
	@testing/fleet/masterless

setup: ## Install all that the other targets need
	@scripts/setup test demo etcd faults fuzz bench

clean: ## Remove what was built
	@rm -rf target
