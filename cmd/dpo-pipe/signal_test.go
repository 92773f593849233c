//go:build cgo && unix

package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dpo-pipe/dpo-pipe/internal/demo"
)

// patience bounds the wait for what a command does at once.
const patience = 30 * time.Second

// TestSignalsEndInOrder interrupts the two long commands once their first part or
// checkpoint is there. What they say is left to do is done, and works.
func TestSignalsEndInOrder(t *testing.T) {
	dir := t.TempDir()
	if err := demo.WriteTo(dir); err != nil {
		t.Fatal(err)
	}
	precompute := []string{"precompute-ref", "--model", "model", "--data", demo.DataFile, "--out", "cache", "--part-pairs", "64", "--batch-tokens", "1"}
	interrupt(t, dir, precompute, "cache/part-00000.arrow", "interrupted; the same command goes on behind the last whole part")
	if out, err := command(context.Background(), t, dir, precompute...).CombinedOutput(); err != nil || !strings.Contains(string(out), "from before") {
		t.Fatalf("the same command again: %v: %s", err, out)
	}
	shard := append([]string{"precompute-ref", "--shards", "2", "--shard", "1"}, precompute[1:]...)
	const folder = "cache-of-shards/shards/shard-00001-of-00002"
	shard = append(shard, "--out", "cache-of-shards")
	interrupt(t, dir, shard, folder+"/part-00001.arrow", "interrupted; the same command goes on behind the last whole part")
	if out, err := command(context.Background(), t, dir, shard...).CombinedOutput(); err != nil || !strings.Contains(string(out), "from before") {
		t.Fatalf("the same shard again: %v: %s", err, out)
	}
	train := []string{"train", "--cache", "cache", "--out", "run", "--save-every", "3", "--epochs", "100"}
	interrupt(t, dir, train, "run/checkpoints/step-3", "interrupted; the same command with --resume goes on")
	sweep := []string{"train", "--cache", "cache", "--out", "sweep", "--save-every", "3", "--epochs", "100", "--sweep", "beta=0.1,0.2"}
	interrupt(t, dir, sweep, "sweep/beta=0.1/checkpoints/step-3", "interrupted; the same command with --resume goes on")
	for _, run := range []string{"run", "sweep/beta=0.1", "sweep/beta=0.2"} {
		if out, err := command(context.Background(), t, dir, "inspect", run+"/last").CombinedOutput(); err != nil {
			t.Fatalf("the checkpoint of an interrupted run: %v: %s", err, out)
		}
	}
}

// interrupt starts a command, signals it when file is there, and wants exit code 130
// and a message.
func interrupt(t *testing.T, dir string, args []string, file, message string) {
	t.Helper()
	cmd := command(context.Background(), t, dir, args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	await(t, filepath.Join(dir, file))
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	err := cmd.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != exitInterrupted || !strings.Contains(stderr.String(), message) {
		t.Fatalf("%v, interrupted: %v, says %q, want exit code %d and %q", args, err, stderr.String(), exitInterrupted, message)
	}
}

// TestSecondSignalKills interrupts a command that hangs where no signal is looked at:
// in the opening of a pipe that nobody writes to.
func TestSecondSignalKills(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe.jsonl"), 0o600); err != nil {
		t.Skipf("no named pipes here: %v", err)
	}
	cmd := command(context.Background(), t, dir, "inspect", "pipe.jsonl")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	deadline := time.After(patience)
	for signals := 0; ; signals++ {
		select {
		case <-ended:
			status := cmd.ProcessState.Sys().(syscall.WaitStatus)
			if !status.Signaled() || status.Signal() != syscall.SIGINT || signals < 2 {
				t.Errorf("ended by %v after %d signals, want an interrupt after 2 or more", cmd.ProcessState, signals)
			}
			return
		case <-deadline:
			cmd.Process.Kill()
			t.Fatalf("still there after %d signals", signals)
		case <-time.After(time.Second):
			cmd.Process.Signal(syscall.SIGINT)
		}
	}
}

// await waits until there is a file.
func await(t *testing.T, file string) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(file); err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited for %s in vain", file)
		}
	}
}
