# Prints what benchmarks report beside time and memory: ratios (units in -x and -share, parts of a sweep) and
# the rate of the bare product that is their limit.
/^Benchmark/ {
	name = $1
	sub(/^Benchmark/, "", name)
	sub(/-[0-9]+$/, "", name) # processors
	for (i = 3; i < NF; i += 2)
		if ($(i + 1) ~ /-(x|share|GFLOP\/s)$|^(wall|cpu|product|kernel)\(/) {
			if (!n++) printf "%-62s %-18s %9s\n", "benchmark", "of the limit", "value"
			printf "%-62s %-18s %9.3f\n", name, $(i + 1), $i
			name = ""
		}
}
END { if (!n) { print "bench: no ratios in the output" > "/dev/stderr"; exit 1 } }
