package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
	"go.yaml.in/yaml/v3"
)

// TestExampleCommands parses every command line of examples/: the command, its flags and their
// values are known.
func TestExampleCommands(t *testing.T) {
	lines := exampleCommands(t)
	if len(lines) < 6 {
		t.Fatalf("found only %q", lines)
	}
	for _, args := range lines {
		a := &app{}
		commands := a.cli()
		ran := ""
		for _, c := range commands.Commands {
			c.Action = func(*cli.Context) error { ran = c.Name; return nil }
		}
		args, err := arrange(commands, append([]string{"dpo-pipe"}, args...))
		if err == nil {
			err = commands.Run(args)
		}
		if err != nil || ran == "" {
			t.Errorf("%q: command %q, %v", args, ran, err)
		}
	}
}

// exampleCommands finds the words behind dpo-pipe in scripts, units and manifests.
func exampleCommands(t *testing.T) (lines [][]string) {
	t.Helper()
	command := regexp.MustCompile(`\bdpo-pipe ((?:run|precompute-ref) [^|&;>]*)`)
	for _, pattern := range []string{"cron/*", "systemd/*.service", "slurm/*", "kubernetes/*.yaml"} {
		files, err := filepath.Glob(filepath.Join("..", "..", "examples", pattern))
		if err != nil || len(files) == 0 {
			t.Fatalf("examples/%s: %v, %v", pattern, files, err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(string(text)) {
				if args, ok := strings.CutPrefix(strings.TrimSpace(line), "args: "); ok {
					var words []string
					if err := yaml.Unmarshal([]byte(args), &words); err != nil {
						t.Errorf("%s: %v", file, err)
					}
					lines = append(lines, words)
				} else if found := command.FindStringSubmatch(line); found != nil {
					lines = append(lines, strings.Fields(strings.NewReplacer(`"${SHARDS:-8}"`, "8", `"$@"`, "", "'", "", `"`, "").Replace(found[1])))
				}
			}
		}
	}
	return lines
}
