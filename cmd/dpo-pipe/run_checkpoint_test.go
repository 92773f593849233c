//go:build cgo && unix

package main

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestAJobTrainsAnewFromADamagedCheckpoint kills a job in its training, damages the checkpoint it would go on
// from and starts it again: the policy then has the bytes of a job that was left alone.
func TestAJobTrainsAnewFromADamagedCheckpoint(t *testing.T) {
	whole := jobWorld(t, killedJob)
	if out, err := command(context.Background(), t, whole, "run", "job.yaml").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	want := policyFiles(t, whole)
	for _, c := range []struct {
		name, file string
		damage     func([]byte) []byte // nil removes the file
		sound      bool
	}{
		{"nothing", "", nil, true},
		{"bit of the head", "adapter_model.safetensors", flipped, false},
		{"half of the optimizer", "optimizer.safetensors", halved, false},
		{"last digits of the state", "trainer_state.json", halved, false},
		{"no head", "adapter_model.safetensors", nil, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, checkpoint := killedInTraining(t)
			if c.file != "" {
				damageFile(t, filepath.Join(checkpoint, c.file), c.damage)
			}
			out, err := command(context.Background(), t, dir, "run", "job.yaml").CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if anew := strings.Contains(string(out), "it begins anew"); anew == c.sound {
				t.Errorf("training began anew: %t; the command wrote\n%s", anew, out)
			}
			sameContents(t, policyFiles(t, dir), want)
		})
	}
}

// killedInTraining kills a job behind its first checkpoint and returns the newest.
func killedInTraining(t *testing.T) (dir, checkpoint string) {
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
		for waiting := true; waiting && newestCheckpoint(t, dir) == ""; {
			select {
			case <-ended:
				waiting = false
			case <-time.After(time.Millisecond):
			}
		}
		_ = cmd.Process.Kill() // it may have ended
		<-ended
		checkpoint := newestCheckpoint(t, dir)
		if checkpoint == "" {
			t.Fatal("the job ended before there was a checkpoint")
		}
		if _, err := os.Stat(filepath.Join(checkpoint, "../../summary.json")); errors.Is(err, fs.ErrNotExist) {
			return dir, checkpoint
		}
	}
	t.Fatal("ten jobs were through with training before they could be killed")
	return "", ""
}

// newestCheckpoint is that of the greatest step of a job's only training, "" without one.
func newestCheckpoint(t *testing.T, dir string) (newest string) {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "runs", "*", "train", "checkpoints", "step-*"))
	if err != nil {
		t.Fatal(err)
	}
	most := 0
	for _, path := range found {
		step, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(path), "step-"))
		if err == nil && step > most {
			newest, most = path, step
		}
	}
	return newest
}

func damageFile(t *testing.T, path string, damage func([]byte) []byte) {
	t.Helper()
	if damage == nil {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		return
	}
	data, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, damage(data), 0o666)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func halved(data []byte) []byte { return data[:len(data)/2] }

func flipped(data []byte) []byte {
	data = bytes.Clone(data)
	data[len(data)/2] ^= 1
	return data
}
