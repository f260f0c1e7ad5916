# make demo    one sentry, two relayers, a publisher and a subscriber on this machine; INPUT=path or `... | make demo`
# make test    everything the demo relies on, proven
# make lint    formatting and clippy, warnings denied
# make bench   the figures of docs/performance.md, each beside a named peer
# make soak    the kill test for longer (KILLS=n, default 250), ten million seals, the rolling upgrade, ten thousand simulated
#              networks (SEEDS=n)
# make soak-broker   its part with a RabbitMQ alone: 15 deaths of the broker (BROKER_KILLS=n), 60 of relayers, a million messages
# make upgrade-test  the release before and this one in one network under load; builds the former from the history once
# make try-units  the systemd units under a real systemd, in namespaces of its own; as root
# make fuzz    every decoder under libFuzzer, MINUTES=n in all (default 20); TARGETS="a b" for some
# make fmt     format the tree
# make ui      build the operator's page from node/ui/src into node/ui/dist, which is committed; needs Node.js and npm

CARGO ?= cargo
PROFILE_DIR = $${CARGO_TARGET_DIR:-target}

BUILD = deploy/scripts/with-rocksdb.sh $(CARGO)

.PHONY: help demo test lint bench soak soak-broker upgrade-test try-units fuzz fmt ui deps test-deps

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

deps:
	@deploy/scripts/install-deps.sh

test-deps:
	@deploy/scripts/install-deps.sh --tests

# --locked: a clean clone builds what was tested.
demo: deps
	@$(BUILD) build --locked --release -p pqcnet-node --bins
	@"$(PROFILE_DIR)/release/pqcnet" demo $(if $(INPUT),--input "$(INPUT)")

test: test-deps
	@if $(CARGO) nextest --version >/dev/null 2>&1; then \
		$(BUILD) nextest run --locked --workspace; \
	else \
		$(BUILD) test --locked --workspace --lib --bins --tests; \
	fi
	@$(BUILD) test --locked --workspace --doc --quiet

lint: deps
	@$(CARGO) fmt --all --check
	@$(BUILD) clippy --locked --workspace --all-targets -- -D warnings

ifeq ($(GROUP),sim)
bench: deps
	@$(BUILD) run --locked --release -p pqcnet-sim --bin pqcnet-sim-figures
	@$(BUILD) bench --locked -p pqcnet-sim --bench gossip
else
# The relay's group and its part `broker` start a RabbitMQ.
bench: $(if $(filter-out relay broker,$(GROUP)),deps,test-deps)
	@$(BUILD) build --locked --release -p pqcnet-node -p pqcnet-bench --bins
	@$(BUILD) run --locked --release -p pqcnet-bench -- $(if $(GROUP),$(GROUP),all)
endif

# The same tests' long versions; they start the release binaries.
soak: test-deps
	@$(BUILD) build --locked --release -p pqcnet-node --bins
	@SOAK_KILLS="$(or $(KILLS),250)" SOAK_BROKER_KILLS="$(or $(BROKER_KILLS),15)" \
		$(BUILD) test --locked --release -p pqcnet-tests --tests -- --ignored --nocapture
	@$(BUILD) test --locked --release -p pqcnet-qstp --lib -- --ignored --exact --nocapture \
		tests::ledger::ten_million_seals_repeat_nothing
	@$(BUILD) build --locked --release -p pqcnet-sim-program
	@"$(PROFILE_DIR)/release/pqcnet-sim" seeds mixed-32 --count $(or $(SEEDS),10000) --jobs $$(nproc)

soak-broker: test-deps
	@$(BUILD) build --locked --release -p pqcnet-node --bins
	@SOAK_BROKER_KILLS="$(or $(BROKER_KILLS),15)" $(BUILD) test --locked --release -p pqcnet-tests --test broker -- \
		--ignored --exact --nocapture soak

upgrade-test: deps
	@$(BUILD) build --locked -p pqcnet-node --bins
	@$(BUILD) test --locked -p pqcnet-tests --test upgrade -- --ignored --nocapture

try-units: deps
	@$(BUILD) build --locked --release -p pqcnet-node --bins
	@deploy/scripts/try-units.sh "$(PROFILE_DIR)/release"

fuzz: deps
	@deploy/scripts/with-rocksdb.sh deploy/scripts/fuzz.sh "$(or $(MINUTES),20)" $(TARGETS)

fmt:
	@$(CARGO) fmt --all

ui:
	@cd node/ui && npm ci --ignore-scripts --no-audit --no-fund && npm run build
