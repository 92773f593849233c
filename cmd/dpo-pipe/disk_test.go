//go:build cgo && linux

package main

import (
	"context"
	"errors"
	"maps"
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
	dir := demoWith(t, "160")
	precompute := []string{"precompute-ref", "--model", "model", "--data", "pairs.jsonl", "--part-pairs", "32", "--out"}
	// The LM head and one part, but not two.
	fillAndResume(t, dir, "cache", "1m", precompute, "the same command goes on")
	// The same of a shard, which has every other part.
	shard := append([]string{"precompute-ref", "--shards", "2", "--shard", "0"}, precompute[1:]...)
	fillAndResume(t, dir, "shard", "1m", shard, "the same command goes on")
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

// TestFullDiskUpdate brings a cache to more data than its disk has room for: an error of
// the environment, and the old cache stays whole. With room, the same command goes on.
func TestFullDiskUpdate(t *testing.T) {
	dir := t.TempDir()
	if err := demo.WriteTo(dir); err != nil {
		t.Fatal(err)
	}
	for name, n := range map[string]string{"old.jsonl": "32", "new.jsonl": "160"} {
		if err := fewPairs(filepath.Join(dir, demo.DataFile), filepath.Join(dir, name), n); err != nil {
			t.Fatal(err)
		}
	}
	disk := filepath.Join(dir, "disk")
	if err := os.Mkdir(disk, 0o777); err != nil {
		t.Fatal(err)
	}
	// The old cache, a second LM head and a part more, but not three.
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=2m"); err != nil {
		t.Skipf("may not mount a small disk: %v", err)
	}
	defer syscall.Unmount(disk, 0)
	ctx := context.Background()
	cache := filepath.Join(disk, "cache")
	run := func(data, out string) (string, int) {
		cmd := command(ctx, t, dir, "precompute-ref", "--model", "model", "--part-pairs", "32", "--data", data, "--out", out)
		text, _ := cmd.CombinedOutput()
		return string(text), cmd.ProcessState.ExitCode()
	}
	if out, code := run("old.jsonl", cache); code != exitDone {
		t.Fatal(out)
	}
	old := everything(t, cache)
	if out, code := run("new.jsonl", cache); code != exitEnvironment || !strings.Contains(out, "hint: the disk is full; make room; the same command goes on") {
		t.Fatalf("on a full disk: exit code %d, want %d and advice: %s", code, exitEnvironment, out)
	}
	if !maps.Equal(everything(t, cache), old) {
		t.Error("the old cache changed")
	}
	if err := syscall.Mount("tmpfs", disk, "tmpfs", syscall.MS_REMOUNT, "size=64m"); err != nil {
		t.Fatal(err)
	}
	if out, code := run("new.jsonl", cache); code != exitDone || !strings.Contains(out, "32 pairs reused, 128 computed") {
		t.Fatalf("with room again: exit code %d: %s", code, out)
	}
	if out, code := run("new.jsonl", "fresh"); code != exitDone {
		t.Fatal(out)
	}
	compareOutputs(t, cache, filepath.Join(dir, "fresh"))
	if entries, err := os.ReadDir(disk); err != nil || len(entries) != 1 {
		t.Errorf("the disk holds %v, %v, want the cache alone", entries, err)
	}
}

// TestFullDiskJoin joins shards on a disk without room for a file: an error of the environment that
// leaves the shards. With room, the same command makes the cache of one process.
func TestFullDiskJoin(t *testing.T) {
	dir := demoWith(t, "64")
	disk := filepath.Join(dir, "disk")
	if err := os.Mkdir(disk, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=16m"); err != nil {
		t.Skipf("may not mount a small disk: %v", err)
	}
	defer syscall.Unmount(disk, 0)
	run := func(code int, args ...string) string {
		t.Helper()
		cmd := command(context.Background(), t, dir, args...)
		out, _ := cmd.CombinedOutput()
		if got := cmd.ProcessState.ExitCode(); got != code {
			t.Fatalf("%v: exit code %d, want %d: %s", args, got, code, out)
		}
		return string(out)
	}
	split := filepath.Join(disk, "split")
	pass := []string{"precompute-ref", "--model", "model", "--data", "pairs.jsonl", "--part-pairs", "16"}
	run(exitDone, append(pass, "--out", "whole")...)
	for _, shard := range []string{"0", "1"} {
		run(exitDone, append(pass, "--out", split, "--shards", "2", "--shard", shard)...)
	}
	before := everything(t, filepath.Join(split, "shards"))
	ballast := filepath.Join(disk, "ballast")
	fillWith(t, ballast)
	if out := run(exitEnvironment, "precompute-ref", "--out", split, "--join"); !strings.Contains(out, "hint: the disk is full; make room; the same command joins the shards") {
		t.Errorf("on a full disk it says %s", out)
	}
	if !maps.Equal(everything(t, filepath.Join(split, "shards")), before) {
		t.Error("the shards changed")
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	run(exitDone, "precompute-ref", "--out", split, "--join")
	compareOutputs(t, split, filepath.Join(dir, "whole"))
}

// fillWith writes a file until its disk is full.
func fillWith(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, size := range []int{1 << 20, 1 << 12} {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, size))
		}
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
}

// TestFullDiskOfAJob runs a job on disks that are too small for one stage or the next: an error of the
// environment, and current is there or not, whole. With room, the same command goes on and publishes
// the bytes of a job that had it.
func TestFullDiskOfAJob(t *testing.T) {
	text := strings.NewReplacer("model: model", "model: ../model", "data: pairs.jsonl", "data: ../pairs.jsonl", "trusted.jsonl", "../trusted.jsonl").Replace(killedJob)
	dir := jobWorld(t, text)
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "whole"), 0o777), os.Mkdir(filepath.Join(dir, "disk"), 0o777)); err != nil {
		t.Fatal(err)
	}
	disk := filepath.Join(dir, "disk")
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=64m"); err != nil {
		t.Skipf("may not mount a small disk: %v", err)
	}
	defer syscall.Unmount(disk, 0)
	for _, name := range []string{"whole", "disk"} {
		if err := os.WriteFile(filepath.Join(dir, name, "job.yaml"), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	start := func(name string) (int, string) {
		cmd := command(context.Background(), t, filepath.Join(dir, name), "run", "job.yaml")
		out, _ := cmd.CombinedOutput()
		return cmd.ProcessState.ExitCode(), string(out)
	}
	if code, out := start("whole"); code != exitDone {
		t.Fatal(out)
	}
	want := policyFiles(t, filepath.Join(dir, "whole"))
	full := 0
	for _, size := range []string{"256k", "1m", "2m", "4m", "6m", "64m"} {
		if err := syscall.Mount("tmpfs", disk, "tmpfs", syscall.MS_REMOUNT, "size="+size); err != nil {
			t.Fatal(err)
		}
		code, out := start("disk")
		switch {
		case code == exitDone:
			sameContents(t, policyFiles(t, disk), want)
		case code != exitEnvironment || !strings.Contains(out, "the disk is full; make room; the same command goes on where this run stopped"):
			t.Fatalf("on a disk of %s: exit code %d, want %d and advice: %s", size, code, exitEnvironment, out)
		default:
			full++
			if _, err := os.Lstat(filepath.Join(disk, "policies", "current")); err == nil {
				t.Errorf("on a disk of %s something was published: %s", size, out)
			}
		}
		if size == "64m" && code != exitDone {
			t.Errorf("with room: %s", out)
		}
	}
	if full < 2 {
		t.Errorf("the disk was full %d times, want 2 or more", full)
	}
}

// TestUpdateOfAMountPoint refuses a cache whose folder can't be renamed, before any work.
func TestUpdateOfAMountPoint(t *testing.T) {
	dir := t.TempDir()
	if err := demo.WriteTo(dir); err != nil {
		t.Fatal(err)
	}
	disk := filepath.Join(dir, "disk")
	if err := os.Mkdir(disk, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=64m"); err != nil {
		t.Skipf("may not mount a small disk: %v", err)
	}
	defer syscall.Unmount(disk, 0)
	for _, c := range []struct {
		pairs string
		code  int
		says  string
	}{{"10", exitDone, "cached 10 pairs"}, {"20", exitUsage, "is a mount point"}} {
		if err := fewPairs(filepath.Join(dir, demo.DataFile), filepath.Join(dir, "pairs.jsonl"), c.pairs); err != nil {
			t.Fatal(err)
		}
		cmd := command(context.Background(), t, dir, "precompute-ref", "--model", "model", "--data", "pairs.jsonl", "--out", disk)
		out, _ := cmd.CombinedOutput()
		if code := cmd.ProcessState.ExitCode(); code != c.code || !strings.Contains(string(out), c.says) {
			t.Errorf("%s pairs: exit code %d, want %d and %q: %s", c.pairs, code, c.code, c.says, out)
		}
	}
}
