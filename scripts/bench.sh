#!/usr/bin/env bash
# Runs the benchmarks on generated models and prints one table of ratios. The lines
# of go test, which benchstat compares, stay in build/bench-SHAPE.txt.
set -euo pipefail
cd "$(dirname "$0")/.."
shape=${1:-tiny}
enough=5s # of rounds, whose median counts
skip='^Benchmark(Engine|Scale)' # one is run by itself, the other by scale.sh
case $shape in
tiny) enough=0.5s whole=./... skip='^BenchmarkEngine$' ;;
smollm2-135m) whole=./cmd/dpo-pipe ;;
v128k) whole= ;;
*)
	echo "bench: shape \"$shape\", want tiny, smollm2-135m or v128k" >&2
	exit 2
	;;
esac
export DPO_PIPE_BENCH_MODEL=$shape DPO_PIPE_REQUIRE_ORT=1
mkdir -p build
out=build/bench-$shape.txt
run() { go test -run '^$' -timeout 60m "$@" | tee -a "$out" >&2; }

: >"$out"
run -bench '^BenchmarkEngine$' -benchtime $enough ./onnx/ort
if [ -n "$whole" ]; then
	run -bench . -skip "$skip" -benchtime 1x "$whole"
fi
echo
awk -f scripts/ratios.awk "$out"
