package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
)

// fewPairs copies the first n lines of a JSONL file.
func fewPairs(from, to, n string) error {
	count, err := strconv.Atoi(n)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	lines := bytes.SplitAfter(data, []byte("\n"))
	if len(lines) < count {
		return fmt.Errorf("%s has %d lines, want %d", from, len(lines), count)
	}
	return os.WriteFile(to, bytes.Join(lines[:count], nil), 0o666)
}
