# The project's commands. Each does its own set-up; `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help

JOBS ?= $(shell nproc)
PREFIX ?= /usr/local

.PHONY: help
help: ## List the commands
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

.PHONY: demo
demo: ## Real Kubernetes, operator, model and an answer on this machine
	@scripts/demo

.PHONY: demo-down
demo-down: ## Stop the demo and remove everything it made, also after a crash
	@scripts/demo-down

.PHONY: build
build: ## Optimised programs in build/release
	@scripts/install-deps build
	@cmake --preset release
	@cmake --build --preset release -j $(JOBS)

.PHONY: build-cuda
build-cuda: ## Programs with the CUDA backend and its tests in build/cuda; fetches the compiler, needs no GPU
	@scripts/install-deps build
	@cmake --preset cuda
	@cmake --build --preset cuda -j $(JOBS) --target deepseek-worker gpu_tests gpu-bench

.PHONY: images-cuda
images-cuda: ## The image of the worker for GPUs, build/deepseek-worker-cuda.tar
	@scripts/images --cuda

.PHONY: install
install: build ## dsmctl, also as kubectl-dsm, into PREFIX/bin (/usr/local)
	@cmake --install build/release --component dsmctl --prefix $(PREFIX)

# End-to-end tests mostly wait for a cluster, and the others for a core: side by side. What both compile is compiled before,
# and tests that wait for processes come when the images are built. A part's output comes when it ends; if one fails, the
# other still runs to its end.
.PHONY: test
test: lint unit build ## Everything: lint, unit, integration, threads, CUDA compiled, end to end
	@$(MAKE) -j 2 --output-sync=target e2e beside-e2e

.PHONY: beside-e2e
beside-e2e:
	@for part in build-cuda threads integration; do $(MAKE) -j 1 $$part || exit; done

.PHONY: dev
dev:
	@scripts/install-deps build
	@cmake --preset dev
	@cmake --build --preset dev -j $(JOBS)

.PHONY: unit
unit: dev ## Unit tests under ASan and UBSan
	@ctest --preset dev -L unit -j $(JOBS)

.PHONY: integration
integration: dev build ## Tests across rooms: numbers, tokenizer, OpenAI clients against the worker
	@scripts/venv
	@ctest --preset dev -L integration -j $(JOBS)
	@.local/venv/bin/python -m pytest -q tests
	@scripts/sdk-venv
	@DSM_SDK_TESTS=required .local/sdk-venv/bin/python -m pytest -q tests/sdk
	@SOAK_BUILDS=dev SOAK_SECONDS=60 scripts/soak

.PHONY: threads
threads: ## Tests of threaded rooms under ThreadSanitizer; races of CUDA threads on the emulated GPU
	@scripts/install-deps build
	@cmake --preset tsan
	@cmake --build --preset tsan -j $(JOBS) --target thread_tests
	@ctest --preset tsan -L threads -j $(JOBS)
	@cmake --preset dev
	@cmake --build --preset dev -j $(JOBS) --target race_tests
	@ctest --preset dev -L races -j $(JOBS)

.PHONY: fuzz
fuzz: ## Parsers on broken input, FUZZ_SECONDS (60) for each target
	@scripts/install-deps build
	@cmake --preset dev
	@cmake --build --preset dev -j $(JOBS) --target fuzz_programs
	@scripts/fuzz

.PHONY: histories
histories: ## Single faults and random histories of the operator in virtual time: HISTORIES (1000) of them, from HISTORY_SEED (1)
	@scripts/install-deps build
	@cmake --preset dev
	@cmake --build --preset dev -j $(JOBS) --target histories fault_histories
	@build/dev/histories $(or $(HISTORIES),1000) $(or $(HISTORY_SEED),1)
	@build/dev/fault_histories $(or $(HISTORIES),1000) $(HISTORY_SEED)

.PHONY: test-gpu
test-gpu: ## Tests on this machine's GPU, packed for another one as build/gpu-tests.tar.xz; exit code 77 without a GPU
	@scripts/gpu-tests pack
	@scripts/gpu-tests run

.PHONY: sanitize-gpu
sanitize-gpu: ## The GPU tests under compute-sanitizer, packed as build/gpu-sanitizer.tar.xz; exit code 77 without a GPU
	@scripts/gpu-tests pack
	@scripts/gpu-sanitizer pack
	@scripts/gpu-sanitizer run

.PHONY: e2e
e2e: ## End-to-end tests on a real cluster (KUBECONFIG + DSM_IMAGE_PREFIX use yours)
	@scripts/e2e $(E2E_ARGS)

.PHONY: e2e-kueue
e2e-kueue: ## The end-to-end test beside Kueue's own controller, which is built first (once per machine)
	@kueue=$$(scripts/go-program kueue | tail -n 1) && DSM_KUEUE=$$kueue scripts/e2e -k kueue $(E2E_ARGS)

.PHONY: e2e-coscheduling
e2e-coscheduling: ## The end-to-end test beside a scheduler with the coscheduling plugin, which is built first (once per machine)
	@coscheduling=$$(scripts/go-program coscheduling | tail -n 1) && DSM_COSCHEDULING=$$coscheduling scripts/e2e -k coscheduling $(E2E_ARGS)

.PHONY: e2e-cuda-image
e2e-cuda-image: ## The end-to-end tests of the worker's image for GPUs, which is built first, on nodes without one
	@answer=$$(scripts/images --cuda) && DSM_CUDA_IMAGE=$${answer#worker-cuda=} scripts/e2e -k cuda_image $(E2E_ARGS)

.PHONY: lint
lint: ## Formatting, clang-tidy on changed files, shell, YAML, chart
	@scripts/lint

.PHONY: format
format: ## Format the C++ sources in place
	@scripts/lint --fix

.PHONY: soak
soak: dev build ## A thousand clients of every kind, 20 minutes with sanitizers and 20 without (SOAK_SECONDS)
	@scripts/soak

.PHONY: bench-serving
bench-serving: ## Measure the worker alone: tokens per second, time to first token, between tokens, memory
	@scripts/bench serving

.PHONY: bench-operator
bench-operator: ## Measure the operator with a thousand models (BENCH_ARGS="--models 100 --minutes 1" is a quick run)
	@scripts/bench operator $(BENCH_ARGS)

.PHONY: bench-gpu
bench-gpu: ## Measure kernels and whole models on this machine's GPU, packed as build/gpu-bench.tar.xz; exit code 77 without a GPU
	@scripts/gpu-bench pack
	@scripts/gpu-bench run

.PHONY: bench
bench: ## Measure: apply to first token, edit to first write, memory, tokens per second
	@scripts/bench

.PHONY: clean
clean: demo-down ## Remove build outputs and local state
	@rm -rf build .local
