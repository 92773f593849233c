package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"github.com/dpo-pipe/dpo-pipe/job"
)

var update = flag.Bool("update", false, "write job/schema.json anew")

// TestSchemaIsCurrent compares the schema in the repository with what run --schema prints.
func TestSchemaIsCurrent(t *testing.T) {
	code, got, stderr := invoke("run", "--schema")
	if code != exitDone {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	path := filepath.Join("..", "..", "job", "schema.json")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Error("job/schema.json is not what run --schema prints: go test ./cmd/dpo-pipe -run Schema -update writes it")
	}
}

// TestKeysAreDocumented compares the table of keys in docs/jobs.md, which ends it, with the schema.
func TestKeysAreDocumented(t *testing.T) {
	path := filepath.Join("..", "..", "docs", "jobs.md")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const head = "| key | default | is |\n| --- | --- | --- |\n"
	before, got, found := strings.Cut(string(text), head)
	if !found {
		t.Fatalf("%s has no table of keys", path)
	}
	want := keysTable(t)
	if *update {
		got = want
		if err := os.WriteFile(path, []byte(before+head+want), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if got != want {
		t.Errorf("the keys in %s are not those of the schema: go test ./cmd/dpo-pipe -run Keys -update writes them", path)
	}
}

// keysTable has a row for each key: name, default, description.
func keysTable(t *testing.T) string {
	t.Helper()
	schema := schemaOf(t)
	var b strings.Builder
	for _, key := range job.Keys() {
		one := schema.find(key)
		value := string(one.Default)
		if text, ok := strings.CutPrefix(value, `"`); ok {
			value = strings.TrimSuffix(text, `"`)
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", key, value, strings.ReplaceAll(one.Description, "|", `\|`))
	}
	return b.String()
}

// schemaOf is what run --schema prints.
func schemaOf(t *testing.T) *node {
	t.Helper()
	_, text, _ := invoke("run", "--schema")
	schema := new(node)
	if err := json.Unmarshal([]byte(text), schema); err != nil {
		t.Fatal(err)
	}
	return schema
}

// TestEveryKeyIsExplained wants a description for every key of the schema.
func TestEveryKeyIsExplained(t *testing.T) {
	schema := schemaOf(t)
	for _, key := range job.Keys() {
		if one := schema.find(key); one == nil || one.Description == "" {
			t.Errorf("%s is not explained", key)
		}
	}
}

// TestEveryFlagHasItsKey walks the flags of the single commands: each sets what a key sets,
// or is a flag of run too.
func TestEveryFlagHasItsKey(t *testing.T) {
	keys := job.Keys()
	// What run does unasked, and what comes before it: processes that share a pass.
	own := map[string]bool{"resume": true, "shards": true, "shard": true, "join": true, "keep-shards": true}
	commands := (&app{}).commands()
	run := slices.IndexFunc(commands, func(c *cli.Command) bool { return c.Name == "run" })
	for _, f := range commands[run].Flags {
		own[f.Names()[0]] = true
	}
	checked := 0
	for _, c := range commands {
		if !slices.Contains([]string{"precompute-ref", "train", "eval", "export"}, c.Name) {
			continue
		}
		for _, f := range c.Flags {
			name := f.Names()[0]
			switch key := job.FlagKey(c.Name, name); {
			case key == "" && !own[name]:
				t.Errorf("%s --%s has no key", c.Name, name)
			case key != "" && !slices.Contains(keys, key):
				t.Errorf("%s --%s is said to be %s, which is no key", c.Name, name, key)
			}
			checked++
		}
	}
	if checked < 80 {
		t.Errorf("only %d flags were looked at", checked)
	}
}

// node is what of a JSON schema is looked at here.
type node struct {
	Description string           `json:"description"`
	Default     json.RawMessage  `json:"default"`
	Properties  map[string]*node `json:"properties"`
	OneOf       []*node          `json:"oneOf"`
}

// find follows a key through the sections.
func (n *node) find(key string) *node {
	name, rest, more := strings.Cut(key, ".")
	one := n.Properties[name]
	for _, way := range n.OneOf {
		if one == nil {
			one = way.Properties[name]
		}
	}
	if one == nil || !more {
		return one
	}
	return one.find(rest)
}
