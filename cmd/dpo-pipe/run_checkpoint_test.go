//go:build cgo && linux

package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestAJobTrainsAnewFromADamagedCheckpoint kills a job in its training, damages its checkpoints and starts
// it again: the policy then has the bytes of a job that was left alone.
func TestAJobTrainsAnewFromADamagedCheckpoint(t *testing.T) {
	whole := jobWorld(t, killedJob)
	if out, err := command(context.Background(), t, whole, "run", "job.yaml").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	want := policyFiles(t, whole)
	for _, c := range []struct{ file, fault string }{
		{"", ""},
		{"adapter_model.safetensors", "bit flipped"},
		{"optimizer.safetensors", "cut in half"},
		{"trainer_state.json", "cut in half"},
		{"adapter_model.safetensors", "missing"},
	} {
		t.Run(c.file+" "+c.fault, func(t *testing.T) {
			dir := killedInTraining(t)
			if at := slices.IndexFunc(faults, func(f fault) bool { return f.name == c.fault }); at >= 0 {
				for _, checkpoint := range jobCheckpoints(t, dir) {
					if err := faults[at].do(filepath.Join(checkpoint, c.file)); err != nil {
						t.Fatal(err)
					}
				}
			}
			out, err := command(context.Background(), t, dir, "run", "job.yaml").CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if anew := strings.Contains(string(out), "it begins anew"); anew != (c.fault != "") {
				t.Errorf("training began anew: %t; the command wrote\n%s", anew, out)
			}
			sameContents(t, policyFiles(t, dir), want)
		})
	}
}

// killedInTraining is the folder of a job that was killed behind its first checkpoint.
func killedInTraining(t *testing.T) string {
	t.Helper()
	for range 10 {
		dir := jobWorld(t, killedJob)
		cmd := command(context.Background(), t, dir, "run", "job.yaml")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() {
			_ = cmd.Wait() // it is killed
			close(ended)
		}()
		for waiting := true; waiting && len(jobCheckpoints(t, dir)) == 0; {
			select {
			case <-ended:
				waiting = false
			case <-time.After(time.Millisecond):
			}
		}
		_ = cmd.Process.Kill() // it may have ended
		<-ended
		found := jobCheckpoints(t, dir)
		if len(found) == 0 {
			t.Fatal("the job ended before there was a checkpoint")
		}
		if _, err := os.Stat(filepath.Join(found[0], "../../summary.json")); errors.Is(err, fs.ErrNotExist) {
			return dir
		}
	}
	t.Fatal("ten jobs were through with training before they could be killed")
	return ""
}

// jobCheckpoints are those of a job's only training.
func jobCheckpoints(t *testing.T, dir string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "runs", "*", "train", "checkpoints", "step-*"))
	if err != nil {
		t.Fatal(err)
	}
	return found
}
