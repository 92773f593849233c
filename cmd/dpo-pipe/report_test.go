package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/dpo-pipe/dpo-pipe/pipeline"
)

func TestReportIsWrittenAgain(t *testing.T) {
	run := filepath.Join(t.TempDir(), "run")
	if code, _, stderr := invoke("train", "--cache", smallCache(t, 8), "--out", run, "--engine", "gonum", "--rank", "2"); code != exitDone {
		t.Fatalf("train exits with %d: %s", code, stderr)
	}
	path := filepath.Join(run, "report.html")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if code, stdout, stderr := invoke("report", run); code != exitDone || stdout != "report "+path+"\n" {
		t.Errorf("report exits with %d, prints %q and %q", code, stdout, stderr)
	}
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
	for _, args := range [][]string{{"report"}, {"report", run, run}} {
		if code, _, _ := invoke(args...); code != exitUsage {
			t.Errorf("%q exits with %d, want %d", args, code, exitUsage)
		}
	}
	if code, _, stderr := invoke("report", filepath.Join(run, "checkpoints")); code == exitDone || stderr == "" {
		t.Errorf("a folder without a run exits with %d and says %q", code, stderr)
	}
}

// The command that a report shows is made of the keys of config.yaml: each must be a flag of train.
func TestSettingsAreFlags(t *testing.T) {
	text, err := yaml.Marshal(pipeline.DefaultTrainConfig())
	if err != nil {
		t.Fatal(err)
	}
	var settings map[string]any
	if err := yaml.Unmarshal(text, &settings); err != nil {
		t.Fatal(err)
	}
	var flags []string
	for _, f := range (&app{}).trainCommand().Flags {
		flags = append(flags, f.Names()...)
	}
	for key := range settings {
		if !slices.Contains(flags, strings.ReplaceAll(key, "_", "-")) {
			t.Errorf("the setting %q has no flag", key)
		}
	}
}
