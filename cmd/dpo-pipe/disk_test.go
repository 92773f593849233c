//go:build cgo && linux

package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/dpo-pipe/dpo-pipe/internal/atomicfile"
	"github.com/dpo-pipe/dpo-pipe/internal/demo"
)

// TestFullDisk writes a cache and a run to a disk that is too small, which is an
// error of the environment and leaves nothing half written; then makes room,
// follows the advice, and wants the bytes of a disk that was large enough.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := demo.WriteTo(dir); err != nil {
		t.Fatal(err)
	}
	if err := fewPairs(filepath.Join(dir, demo.DataFile), filepath.Join(dir, "pairs.jsonl"), "160"); err != nil {
		t.Fatal(err)
	}
	precompute := []string{"precompute-ref", "--model", "model", "--data", "pairs.jsonl", "--part-pairs", "32", "--out"}
	// The LM head and one part, but not two.
	fillAndResume(t, dir, "cache", "1m", precompute, "the same command goes on")
	train := []string{"train", "--cache", "large-cache", "--save-every", "3", "--eval-frac", "0", "--resume", "--out"}
	// One checkpoint, but not two.
	fillAndResume(t, dir, "run", "400k", train, "with --resume goes on")
}

func fillAndResume(t *testing.T, dir, name, size string, args []string, advice string) {
	t.Helper()
	ctx := context.Background()
	if out, err := command(ctx, t, dir, append(args, "large-"+name)...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	disk := filepath.Join(dir, "disk-"+name)
	if err := os.Mkdir(disk, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("may not mount a small disk: %v", err)
	}
	defer syscall.Unmount(disk, 0)
	args = append(args, filepath.Join(disk, name))
	cmd := command(ctx, t, dir, args...)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != exitEnvironment || !strings.Contains(string(out), "hint: the disk is full") || !strings.Contains(string(out), advice) {
		t.Fatalf("%s on a full disk: %v, want exit code %d and advice: %s", name, err, exitEnvironment, out)
	}
	left := everything(t, disk)
	if len(left) < 2 {
		t.Errorf("%s on a full disk left %d files, want those that were finished", name, len(left))
	}
	for file := range left {
		if strings.Contains(file, atomicfile.TempPrefix) {
			t.Errorf("%s on a full disk left %s", name, file)
		}
	}
	if err := syscall.Mount("tmpfs", disk, "tmpfs", syscall.MS_REMOUNT, "size=64m"); err != nil {
		t.Fatal(err)
	}
	if out, err := command(ctx, t, dir, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s, with room again: %v: %s", name, err, out)
	}
	compareOutputs(t, filepath.Join(disk, name), filepath.Join(dir, "large-"+name))
}

// compareOutputs wants the same files with the same bytes, but for figures of time.
func compareOutputs(t *testing.T, got, want string) {
	t.Helper()
	have, wanted := everything(t, got), everything(t, want)
	if len(have) != len(wanted) {
		t.Errorf("%s has %d files, want %d", got, len(have), len(wanted))
	}
	for file, content := range wanted {
		switch filepath.Base(file) {
		case "config.yaml", "metrics.jsonl", "summary.json", "trainer_state.json", "events.out.tfevents.dpo-pipe", "report.html": // paths and timings
		default:
			if have[file] != content {
				t.Errorf("%s differs: %d bytes, want %d", file, len(have[file]), len(content))
			}
		}
	}
}
