# Sums a profile of ONNX Runtime (DPO_PIPE_ORT_PROFILE): each operator's share of the time in all of them.
/"cat" *: *"Node"/ && /_kernel_time/ {
	match($0, /"dur" *: *[0-9]+/)
	took = substr($0, RSTART, RLENGTH)
	sub(/.*:/, "", took)
	match($0, /"op_name" *: *"[^"]+/)
	op = substr($0, RSTART, RLENGTH)
	sub(/.*"/, "", op)
	sum[op] += took
	all += took
}
END {
	if (!all) { print "operators: no profile" > "/dev/stderr"; exit 1 }
	for (op in sum) printf "%5.1f %% %s\n", 100 * sum[op] / all, op
}
