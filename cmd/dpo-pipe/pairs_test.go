package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/dpo-pipe/dpo-pipe/internal/demo"
)

// demoWith makes a folder with the demo's files and pairs.jsonl, its first n pairs.
func demoWith(t *testing.T, n string) string {
	t.Helper()
	dir := t.TempDir()
	if err := demo.WriteTo(dir); err != nil {
		t.Fatal(err)
	}
	if err := fewPairs(filepath.Join(dir, demo.DataFile), filepath.Join(dir, "pairs.jsonl"), n); err != nil {
		t.Fatal(err)
	}
	return dir
}

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
