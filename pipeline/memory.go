package pipeline

import (
	"os"
	"strconv"
	"strings"
)

// What of PrecomputeConfig.Memory a batch may take, with its past, and what waits for the
// batches to come. There are up to four batches at once, each with its past and its grown
// cache, and the garbage collector takes what is kept a second time: together that is all of it.
const (
	batchShare = 16
	keptShare  = 4
)

// The default is a quarter of the machine's memory, by powers of two so that it is the same from day to
// day: it is part of a cache's identity. More than mostMemory saves nothing.
const (
	leastMemory = 64 << 20
	mostMemory  = 2 << 30
)

func defaultMemory() int64 {
	m, limit := int64(mostMemory), machineMemory()/4
	for limit > 0 && m > limit && m > leastMemory {
		m /= 2
	}
	return m
}

// machineMemory is what this process may use, bytes: the machine's memory or a container's limit. It is 0
// where the system does not say.
func machineMemory() int64 {
	total := int64(0)
	for _, file := range []string{"/proc/meminfo", "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		if n := firstBytes(string(text)); n > 0 && (total == 0 || n < total) {
			total = n
		}
	}
	return total
}

// firstBytes reads the first number of a text, in bytes or with kB behind it; 0 if there is none.
func firstBytes(text string) int64 {
	words := strings.Fields(text)
	for i, word := range words {
		n, err := strconv.ParseInt(word, 10, 64)
		if err != nil {
			continue
		}
		if i+1 < len(words) && words[i+1] == "kB" {
			n *= 1 << 10
		}
		return n
	}
	return 0
}
