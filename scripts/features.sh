#!/usr/bin/env bash
# Prints a table of what each way of storing features costs and brings: features.sh [MODEL DATA],
# a model folder and a file of pairs, else the built-in ones. ROUNDS trainings are timed (3);
# SHAPE=smollm2-135m takes a generated model of that size and one.
set -euo pipefail
if [ $# -ne 0 ] && [ $# -ne 2 ]; then
	echo "features: $# arguments, want MODEL DATA or none" >&2
	exit 2
fi
if [ $# -eq 2 ]; then
	DPO_PIPE_BENCH_FEATURES=$(realpath "$1"):$(realpath "$2")
	export DPO_PIPE_BENCH_FEATURES
fi
cd "$(dirname "$0")/.."
export DPO_PIPE_BENCH_MODEL=${SHAPE:-tiny} DPO_PIPE_REQUIRE_ORT=1
mkdir -p build
go test -run '^$' -timeout 60m -bench '^BenchmarkFeatures$' -benchtime "${ROUNDS:-3}x" ./cmd/dpo-pipe | tee build/bench-features.txt >&2
awk '
/^BenchmarkFeatures/ {
	for (i = 3; i < NF; i += 2) value[$(i + 1)] = $i
	n = split("MB size-x µnats-max µnats-mean loss rewards/accuracies rewards/margins kl epoch-x cpu-epoch-x", names, " ")
	if (!lines++) {
		head = "| model | features |"; rule = "| --- | --- |"
		for (i = 1; i <= n; i++) { head = head " " names[i] " |"; rule = rule " --- |" }
		print head "\n" rule
	}
	split($1, part, "[/=]")
	sub(/-[0-9]+$/, "", part[5]) # processors
	row = "| " part[3] " | " part[5] " |"
	for (i = 1; i <= n; i++) row = row " " value[names[i]] " |"
	print row
}' build/bench-features.txt
