//go:build cgo

package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// documents are the pages whose commands are run. A block that begins with
// ```console is a session: lines with "$ " are commands, those below are what they print. One
// that begins with ```yaml and a comment "# PATH" is a file.
var documents = []string{
	"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/architecture.md", "docs/deploy.md", "docs/jobs.md",
	"docs/objectives.md", "docs/performance.md", "docs/shards.md", "docs/stores.md",
}

// docTimeout bounds one command of a document.
const docTimeout = 5 * time.Minute

// TestDocuments runs the sessions of each document from top to bottom in one
// empty folder and compares what is printed, with every number masked.
func TestDocuments(t *testing.T) {
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range documents {
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join(root, name))
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			for path, content := range yamlFiles(string(text)) {
				writeIn(t, dir, path, content)
			}
			for _, step := range sessions(string(text)) {
				step.run(t, root, dir)
			}
		})
	}
}

// step is a command of a document and the lines below it.
type step struct {
	command string
	want    []string
}

// sessions reads the console blocks of a document.
func sessions(text string) (steps []step) {
	inside := false
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		switch {
		case strings.HasPrefix(line, "```"):
			inside = line == "```console"
		case !inside:
		case strings.HasPrefix(line, "$ "):
			steps = append(steps, step{command: line[2:]})
		case len(steps) > 0:
			s := &steps[len(steps)-1]
			s.want = append(s.want, line)
		}
	}
	return steps
}

// yamlFiles reads the YAML blocks of a document that begin with the name of a file.
func yamlFiles(text string) map[string]string {
	files := map[string]string{}
	for _, block := range strings.Split(text, "\n```yaml\n# ")[1:] {
		path, rest, _ := strings.Cut(block, "\n")
		files[path], _, _ = strings.Cut(rest, "```")
	}
	return files
}

// writeIn writes a file below a folder.
func writeIn(t *testing.T, dir, path, content string) {
	t.Helper()
	path = filepath.Join(dir, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o666); err != nil {
		t.Fatal(err)
	}
}

func (s step) run(t *testing.T, root, dir string) {
	t.Helper()
	words := strings.Fields(s.command)
	switch words[0] {
	case "git", "cd":
	case "head": // -n N FROM > TO
		if err := fewPairs(filepath.Join(dir, words[3]), filepath.Join(dir, words[5]), words[2]); err != nil {
			t.Fatalf("%s: %v", s.command, err)
		}
	case "make":
		// The target must exist; running make test inside of it would not end.
		cmd := exec.Command("make", append([]string{"-n"}, words[1:]...)...)
		cmd.Dir = root
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", s.command, err, out)
		}
	case "dpo-pipe":
		ctx, cancel := context.WithTimeout(context.Background(), docTimeout)
		defer cancel()
		out, err := command(ctx, t, dir, words[1:]...).Output()
		if err != nil {
			t.Fatalf("%s: %v", s.command, err)
		}
		s.compare(t, string(out))
	default:
		t.Errorf("%s: a document shows a command that no test runs", s.command)
	}
}

// compare checks the lines that the document shows, in order; "…" stands for any
// number of lines.
func (s step) compare(t *testing.T, out string) {
	t.Helper()
	var got []string
	for line := range strings.Lines(out) {
		got = append(got, mask(line))
	}
	at := 0
	skip := false
	for _, want := range s.want {
		if strings.TrimSpace(want) == "…" {
			skip = true
			continue
		}
		for skip && at < len(got) && got[at] != mask(want) {
			at++
		}
		if at == len(got) || got[at] != mask(want) {
			t.Errorf("$ %s\ndocument says %q, not found at its place in\n%s", s.command, want, out)
			return
		}
		at++
		skip = false
	}
}

var numbers = regexp.MustCompile(`-?[0-9][0-9,.]*(e[-+][0-9]+)?|[0-9a-f]{16,}`)

// mask replaces numbers, hashes and runs of spaces, which differ from run to run.
func mask(line string) string {
	return strings.Join(strings.Fields(numbers.ReplaceAllString(line, "N")), " ")
}
