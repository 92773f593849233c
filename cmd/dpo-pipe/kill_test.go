//go:build cgo

package main

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dpo-pipe/dpo-pipe/internal/demo"
)

// kills is how often each command is killed at a random moment, slowKills how often one
// that takes as long as several of them.
const (
	kills     = 20
	slowKills = 8
)

// TestKilledCommandsResume kills precompute-ref and train with SIGKILL at random
// moments, runs them again until they finish, and wants the bytes of a run that
// was left alone.
func TestKilledCommandsResume(t *testing.T) {
	if testing.Short() {
		t.Skip("takes many runs of the command")
	}
	dir := demoWith(t, "160")
	precompute := func(out string) []string {
		return []string{"precompute-ref", "--model", "model", "--data", "pairs.jsonl", "--out", out, "--part-pairs", "8"}
	}
	train := func(out string) []string {
		return []string{"train", "--cache", "whole-cache", "--out", out, "--epochs", "4", "--batch-pairs", "4", "--save-every", "7", "--resume"}
	}
	killAndCompare(t, dir, "cache", kills, precompute, everything)
	killAndCompare(t, dir, "run", kills, train, lastCheckpoint)
	if out, err := command(t.Context(), t, dir, append(precompute("no-features"), "--features", "none")...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	killAndCompare(t, dir, "run-without-features", slowKills, func(out string) []string {
		return append(train(out), "--cache", "no-features", "--model", "model")
	}, lastCheckpoint)
	runs := []string{"loss=sigmoid,epochs=1", "loss=sigmoid,epochs=2", "loss=aot,epochs=1", "loss=aot,epochs=2"}
	sweep := func(out string) []string {
		return []string{
			"train", "--cache", "whole-cache", "--out", out, "--batch-pairs", "4", "--save-every", "7", "--resume",
			"--sweep", "loss=sigmoid,aot", "--sweep", "epochs=1,2",
		}
	}
	killAndCompare(t, dir, "sweep", slowKills, sweep, func(t *testing.T, sweep string) map[string]string {
		files := map[string]string{}
		for _, run := range runs {
			for name, content := range lastCheckpoint(t, filepath.Join(sweep, run)) {
				files[filepath.Join(run, name)] = content
			}
		}
		return files
	})
}

// lastCheckpoint reads what the newest checkpoint of a run holds.
func lastCheckpoint(t *testing.T, run string) map[string]string {
	t.Helper()
	last, err := filepath.EvalSymlinks(filepath.Join(run, "last"))
	if err != nil {
		t.Fatal(err)
	}
	files := everything(t, last)
	// Its length of metrics.jsonl moves with the digits of timings.
	delete(files, "trainer_state.json")
	evaluation, err := os.ReadFile(filepath.Join(run, "evaluation.json"))
	if err != nil {
		t.Fatal(err)
	}
	files["evaluation.json"] = string(evaluation)
	return files
}

// killing draws moments to kill a command at: within the time that it took by itself, and
// later from kill to kill. On a machine that has become slower no start would come
// any further otherwise.
type killing struct {
	rng  *rand.Rand
	took time.Duration
	row  int
}

func (k *killing) moment() time.Duration {
	k.row++
	return time.Duration(k.rng.Float64() * float64(k.took) * (1 + float64(k.row)/8))
}

// ended says that the command was not killed.
func (k *killing) ended() { k.row = 0 }

// killAndCompare runs a command once in peace, then kills it until it has been
// killed often enough, comparing every output that a killed one finishes.
func killAndCompare(t *testing.T, dir, name string, kills int, args func(out string) []string, files func(*testing.T, string) map[string]string) {
	ctx := context.Background()
	start := time.Now()
	if out, err := command(ctx, t, dir, args("whole-"+name)...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	took := time.Since(start)
	want := files(t, filepath.Join(dir, "whole-"+name))
	kill := &killing{rng: rand.New(rand.NewPCG(1, 2)), took: took}
	killed, finished := 0, 0
	for round := 0; killed < kills; round++ {
		out := fmt.Sprintf("%s-%d", name, round)
		for again := true; again; {
			cmd := command(ctx, t, dir, args(out)...)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			timer := time.AfterFunc(kill.moment(), func() { cmd.Process.Kill() })
			err := cmd.Wait()
			again = err != nil
			if timer.Stop(); again {
				killed++
			}
			if again && cmd.ProcessState.ExitCode() >= 0 {
				t.Fatalf("%s ended by itself: %v", out, err)
			}
		}
		finished++
		kill.ended()
		for file, content := range files(t, filepath.Join(dir, out)) {
			if content != want[file] {
				t.Errorf("%s: %s differs from that of an uninterrupted run", out, file)
			}
			delete(want, file)
		}
		for file := range want {
			t.Errorf("%s: %s is missing", out, file)
		}
		want = files(t, filepath.Join(dir, "whole-"+name))
	}
	t.Logf("%s: killed %d times over %d outputs, all equal", name, killed, finished)
}

// everything reads all files below dir.
func everything(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Type()&os.ModeSymlink != 0 {
			return err
		}
		data, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		files[name] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// TestKilledUpdates kills updates of a cache with SIGKILL at random moments. After each,
// the old cache or the new one is there, whole; run again they finish, with the bytes of
// a fresh pass and nothing beside.
func TestKilledUpdates(t *testing.T) {
	if testing.Short() {
		t.Skip("takes many runs of the command")
	}
	dir := t.TempDir()
	if err := demo.WriteTo(dir); err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	run := func(pairs, folder string) *exec.Cmd {
		return command(ctx, t, dir, "precompute-ref", "--model", "model", "--data", pairs, "--out", filepath.Join(folder, "cache"), "--part-pairs", "8")
	}
	states := map[string]map[string]string{}
	for folder, n := range map[string]string{"old": "80", "new": "160"} {
		if err := fewPairs(filepath.Join(dir, demo.DataFile), filepath.Join(dir, folder+".jsonl"), n); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(filepath.Join(dir, folder), 0o777); err != nil {
			t.Fatal(err)
		}
		if out, err := run(folder+".jsonl", folder).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		states[folder] = everything(t, filepath.Join(dir, folder, "cache"))
	}
	killed, seen, moments := 0, map[string]int{}, killing{rng: rand.New(rand.NewPCG(3, 4))}
	for round := 0; killed < kills; round++ {
		folder := fmt.Sprint("round-", round)
		if err := os.CopyFS(filepath.Join(dir, folder), os.DirFS(filepath.Join(dir, "old"))); err != nil {
			t.Fatal(err)
		}
		cache := filepath.Join(dir, folder, "cache")
		for again := true; again; {
			cmd := run("new.jsonl", folder)
			start := time.Now()
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			kill := make(<-chan time.Time)
			if round > 0 {
				kill = time.After(moments.moment())
			}
			ended := make(chan error, 1)
			go func() { ended <- cmd.Wait() }()
			var err error
			select {
			case err = <-ended:
			case <-kill:
				cmd.Process.Kill()
				err = <-ended
			}
			if round == 0 {
				moments.took = time.Since(start)
			}
			if again = err != nil; again {
				killed++
			} else {
				moments.ended()
			}
			if again && cmd.ProcessState.ExitCode() >= 0 {
				t.Fatalf("%s ended by itself: %v", folder, err)
			}
			files := everything(t, cache)
			delete(files, lockName)
			switch {
			case maps.Equal(files, states["new"]):
				seen["new"]++
			case maps.Equal(files, states["old"]) && again:
				seen["old"]++
			default:
				t.Fatalf("%s: killed (%v), neither the old nor the new cache is there", folder, again)
			}
		}
		entries, err := os.ReadDir(filepath.Join(dir, folder))
		if err != nil || len(entries) != 1 {
			t.Errorf("%s holds %v, %v, want the cache alone", folder, entries, err)
		}
		if _, err := os.Stat(filepath.Join(cache, lockName)); err == nil {
			t.Errorf("%s: the lock's file is left", folder)
		}
	}
	t.Logf("killed %d times; the old cache was there %d times, the new one %d times", killed, seen["old"], seen["new"])
}

// TestKilledShards kills the processes of a split pass, one shard of which runs twice at
// once, and the one that joins, with SIGKILL at random moments, each until it is done. The
// cache has the bytes of one process.
func TestKilledShards(t *testing.T) {
	if testing.Short() {
		t.Skip("takes many runs of the command")
	}
	dir := demoWith(t, "160")
	pass := func(out string, more ...string) []string {
		return append([]string{"precompute-ref", "--model", "model", "--data", "pairs.jsonl", "--out", out, "--part-pairs", "8"}, more...)
	}
	start := time.Now()
	if out, err := command(context.Background(), t, dir, pass("whole")...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	took, want, killed := time.Since(start), everything(t, filepath.Join(dir, "whole")), new(atomic.Int64)
	for round := 0; killed.Load() < kills; round++ {
		out := fmt.Sprint("split-", round)
		var processes sync.WaitGroup
		for n, shard := range []string{"0", "1", "2", "0"} {
			processes.Go(func() {
				kill := &killing{rng: rand.New(rand.NewPCG(uint64(round), uint64(n))), took: took}
				killUntilDone(t, dir, kill, killed, pass(out, "--shards", "3", "--shard", shard))
			})
		}
		processes.Wait()
		kill := &killing{rng: rand.New(rand.NewPCG(uint64(round), 9)), took: took / 4}
		killUntilDone(t, dir, kill, killed, []string{"precompute-ref", "--out", out, "--join"})
		if got := everything(t, filepath.Join(dir, out)); !maps.Equal(got, want) {
			t.Fatalf("%s differs from the cache of one process: it holds %v", out, slices.Sorted(maps.Keys(got)))
		}
	}
	t.Logf("killed %d times", killed.Load())
}

// killUntilDone runs a command again and again, killed at random moments, until it ends by
// itself: with success, or because another process has its folder.
func killUntilDone(t *testing.T, dir string, kill *killing, killed *atomic.Int64, args []string) {
	for {
		cmd := command(context.Background(), t, dir, args...)
		var stderr strings.Builder
		cmd.Stderr = &stderr
		if err := cmd.Start(); err != nil {
			t.Error(err)
			return
		}
		timer := time.AfterFunc(kill.moment(), func() { cmd.Process.Kill() })
		err := cmd.Wait()
		timer.Stop()
		switch code := cmd.ProcessState.ExitCode(); {
		case err == nil:
			return
		case code < 0:
			killed.Add(1)
		case code == exitFailed && strings.Contains(stderr.String(), "another process"):
		default:
			t.Errorf("%v ended by itself: %v: %s", args, err, stderr.String())
			return
		}
	}
}

// lockName is the file that a killed writer leaves in its folder.
const lockName = ".lock"
