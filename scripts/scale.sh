#!/usr/bin/env bash
# Measures what the built command costs against the number of pairs (arguments; 1,000
# to 100,000 unless told otherwise), the length of completions and the size of the head, and
# prints one table. The lines of go test, which benchstat compares, stay in build/scale.txt.
set -euo pipefail
cd "$(dirname "$0")/.."
export DPO_PIPE_SCALE_PAIRS="${*:-1000 10000 100000}" DPO_PIPE_BENCH_BINARY=$PWD/build/dpo-pipe DPO_PIPE_REQUIRE_ORT=1
out=build/scale.txt
go test -run '^$' -bench '^BenchmarkScale' -benchtime 1x -timeout 120m ./cmd/dpo-pipe | tee "$out" >&2
echo
awk -f scripts/scale.awk "$out"
