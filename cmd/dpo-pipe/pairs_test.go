package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
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

// flipLabels exchanges the preferred and the other completion of every row of a JSONL file.
func flipLabels(path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	swap := strings.NewReplacer(`"chosen"`, `"rejected"`, `"rejected"`, `"chosen"`)
	return os.WriteFile(path, []byte(swap.Replace(string(data))), 0o666)
}

// repeatPairs writes n pairs: the first lines of a JSONL file again and again, told apart by the
// column nr.
func repeatPairs(from, to string, lines, n int) error {
	if err := fewPairs(from, to, strconv.Itoa(lines)); err != nil {
		return err
	}
	data, err := os.ReadFile(to)
	if err != nil {
		return err
	}
	rows := bytes.Split(bytes.TrimSpace(data), []byte("\n"))
	var all bytes.Buffer
	for i := range n {
		fmt.Fprintf(&all, "{\"nr\": \"%d\", %s\n", i, rows[i%len(rows)][1:])
	}
	return os.WriteFile(to, all.Bytes(), 0o666)
}
