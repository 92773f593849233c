package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
	"go.yaml.in/yaml/v3"

	"github.com/dpo-pipe/dpo-pipe/job"
	"github.com/dpo-pipe/dpo-pipe/store"
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

// TestExampleJobs loads the job files that manifests hold: every key is known, and each URL is
// one of a store.
func TestExampleJobs(t *testing.T) {
	file, err := os.Open(filepath.Join("..", "..", "examples", "kubernetes", "bucket.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var config struct {
		Data map[string]string `yaml:"data"`
	}
	if err := yaml.NewDecoder(file).Decode(&config); err != nil || len(config.Data) != 1 {
		t.Fatalf("%d job files, %v", len(config.Data), err)
	}
	for name, text := range config.Data {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
		c, err := job.Load(path, func(string) (string, bool) { return "", false })
		if err != nil {
			t.Fatal(err)
		}
		for _, place := range []string{c.Model.Path, c.Data[0].Path, c.Cache.Out, c.Runs.Path, c.Publish.To} {
			if !store.IsURL(place) {
				t.Errorf("%s: %q is no URL of a store", name, place)
			}
		}
	}
}
