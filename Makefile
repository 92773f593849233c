# `make help` lists the targets.
.PHONY: help demo setup build test examples race nocgo fuzz soak slurm lint bench scale clean node versitygw fakegcs azurite container

BIN := build/dpo-pipe

help: ## what can be made
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

demo: build ## the whole job on the embedded model and data
	@$(BIN) demo

setup: ## ONNX Runtime into the user's cache folder, once
	@scripts/setup-ort.sh

build: setup ## the command, in build/
	@go build -o $(BIN) ./cmd/dpo-pipe

test: setup ## all tests; none is skipped for want of ONNX Runtime
	DPO_PIPE_REQUIRE_ORT=1 go test -timeout 30m ./...

examples: ## the files of examples/, read as their schedulers do; a module of its own
	cd examples && go vet ./... && go test ./...

race: setup ## the tests under the race detector
	DPO_PIPE_REQUIRE_ORT=1 go test -race -timeout 60m ./...

nocgo: ## everything but onnx/ort without a C compiler
	CGO_ENABLED=0 go build ./...
	CGO_ENABLED=0 go test -timeout 30m ./...

slurm: build ## the reference pass in shards on a real Slurm, set up and taken down; installs Debian's packages
	@scripts/slurm-test.sh $(BIN)

N := 10000

fuzz: setup ## N (10000) broken files of every kind, read in processes of their own: errors, crashes, peak memory
	DPO_PIPE_REQUIRE_ORT=1 DPO_PIPE_FUZZ=$(N) go test ./cmd/dpo-pipe -run 'TestBrokenFiles$$' -v -count 1 -timeout 0

soak: build ## RUNS (300) scheduled runs of a job with random faults, for MINUTES (30) at most; SEED draws others
	DPO_PIPE_REQUIRE_ORT=1 DPO_PIPE_SOAK=$(or $(RUNS),300) DPO_PIPE_SOAK_MINUTES=$(or $(MINUTES),30) DPO_PIPE_SOAK_SEED=$(or $(SEED),1) \
		DPO_PIPE_SOAK_BINARY=$(abspath $(BIN)) go test ./cmd/dpo-pipe -run 'TestSoak$$' -v -count 1 -timeout 0

lint: ## formatting, vet, staticcheck
	@scripts/lint.sh

bench: setup ## benchmarks as one table of ratios; SHAPE=smollm2-135m or v128k makes them large
	@scripts/bench.sh $(SHAPE)

scale: build ## cost against size: processor time and peak memory; SIZES="1000 10000" are the pairs
	@scripts/scale.sh $(SIZES)

node: ## packages of outside readers (Arrow, ONNX Runtime, transformers.js) that some tests compare with
	@mkdir -p build/node
	@cp cmd/dpo-pipe/testdata/node/package.json build/node/
	@npm install --silent --no-package-lock --ignore-scripts --prefix build/node

versitygw: ## an S3 server in build/, on which some tests run
	@go build -C tools/versitygw -o ../../build/versitygw github.com/versity/versitygw/cmd/versitygw

fakegcs: ## a server of Google Cloud Storage's protocol in build/, on which the same tests run
	@go build -C tools/fakegcs -o ../../build/fake-gcs-server github.com/fsouza/fake-gcs-server

azurite: ## a server of Azure Blob Storage's protocol in build/, for go test -tags azure ./store ./publish ./cmd/dpo-pipe
	@npm install --silent --no-package-lock --ignore-scripts --prefix build/azurite azurite@3.35.0

container: ## examples/Containerfile built and run with buildah, as root; installs Debian's packages
	@scripts/container-test.sh

clean: ## remove what was built
	rm -rf build
