# Prints what BenchmarkScale… report as one table: for each size and command the processor
# seconds, the microseconds of them for one pair or token, and the peak of resident memory.
/^BenchmarkScale/ {
	name = $1
	sub(/^BenchmarkScale[A-Za-z]*\//, "", name)
	sub(/-[0-9]+$/, "", name) # processors
	split("", value)
	split("", each)
	for (i = 3; i < NF; i += 2) {
		value[$(i + 1)] = $i
		if (match($(i + 1), /-cpu-µs\//))
			each[substr($(i + 1), 1, RSTART - 1)] = $(i + 1)
	}
	for (k = split("precompute-ref train", commands, " "); k > 0; k--) {
		c = commands[3 - k]
		if (!(c in each)) continue
		if (!n++) printf "%-22s %-15s %9s %16s %9s\n", "size", "command", "cpu s", "cpu us", "peak MB"
		unit = each[c]
		sub(/.*\//, "a ", unit)
		printf "%-22s %-15s %9.2f %8.1f %-7s %9.0f\n", name, c, value[c "-cpu-s"], value[each[c]], unit, value[c "-peak-MB"]
		name = ""
	}
}
END { if (!n) { print "scale: no costs in the output" > "/dev/stderr"; exit 1 } }
