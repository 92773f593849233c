//go:build cgo

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
)

// TestOnlyResultsOnStdout runs every command in a process of its own, where a
// library that prints would be seen too: with --json stdout is one JSON value and
// nothing else, a failed command leaves it empty.
func TestOnlyResultsOnStdout(t *testing.T) {
	dir := demoWith(t, "40")
	for _, line := range []string{
		"precompute-ref --model model --data pairs.jsonl --out cache --dry-run",
		"precompute-ref --model model --data pairs.jsonl --out cache",
		"precompute-ref --model model --data pairs.jsonl --out cache",
		"train --cache cache --out run --eval-frac 0.3",
		"train --cache cache --out run --eval-frac 0.3 --resume",
		"eval --cache cache --checkpoint run/last",
		"export --checkpoint run/last --model model --out policy",
		"compare --model model --policy policy --prompt Hi --max-tokens 2",
		"inspect cache", "inspect run", "inspect run/last", "inspect model", "inspect policy", "inspect pairs.jsonl",
		"doctor",
	} {
		t.Run(line, func(t *testing.T) {
			out, err := command(context.Background(), t, dir, append(strings.Fields(line), "--json")...).Output()
			if err != nil {
				t.Fatal(err)
			}
			dec := json.NewDecoder(bytes.NewReader(out))
			var value any
			if err := dec.Decode(&value); err != nil {
				t.Fatalf("stdout %q: %v", out, err)
			}
			if _, err := dec.Token(); !errors.Is(err, io.EOF) {
				t.Errorf("stdout goes on behind the JSON value: %q", out)
			}
		})
	}
	for _, line := range []string{
		"precompute-ref --model model --data pairs.jsonl --out pairs.jsonl", "train --cache cache --out run",
		"eval --cache nowhere --checkpoint run/last", "export --checkpoint run/last --model model --out policy",
		"compare --model model", "inspect nowhere", "demo --out model", "no-such-command", "train --no-such-flag",
	} {
		t.Run(line, func(t *testing.T) {
			out, err := command(context.Background(), t, dir, strings.Fields(line)...).Output()
			if err == nil || len(out) > 0 {
				t.Errorf("ends with %v and stdout %q, want an error and nothing", err, out)
			}
		})
	}
}
