//go:build cgo && unix

package main

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dpo-pipe/dpo-pipe/internal/demo"
	"github.com/dpo-pipe/dpo-pipe/job"
)

// killedJob is the job file of the tests here; the data grows from one run to the next.
const killedJob = `
model: model
data: pairs.jsonl
cache: {part_pairs: 8}
train: {beta: 0.5, epochs: 4, batch_pairs: 4, save_every: 7, eval_frac: 0.2}
evaluation: {pairs: trusted.jsonl}
gates: {min_accuracy: 0.5}
publish: {to: policies}
`

// jobWorld lays out model, data and job file in a new folder.
func jobWorld(t *testing.T, text string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := demo.WriteTo(dir); err != nil {
		t.Fatal(err)
	}
	grow(t, dir, "80")
	if err := fewPairs(filepath.Join(dir, demo.DataFile), filepath.Join(dir, "trusted.jsonl"), "24"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "job.yaml"), []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	return dir
}

// grow makes the first n pairs the data.
func grow(t *testing.T, dir, n string) {
	t.Helper()
	if err := fewPairs(filepath.Join(dir, demo.DataFile), filepath.Join(dir, "pairs.jsonl"), n); err != nil {
		t.Fatal(err)
	}
}

// TestKilledJobsResume kills a job with SIGKILL at random moments, over two days of data, and
// starts it again until it ends. Each day then has one published run, of the bytes of a job
// that was left alone.
func TestKilledJobsResume(t *testing.T) {
	if testing.Short() {
		t.Skip("takes many runs of the command")
	}
	whole := jobWorld(t, killedJob)
	var took time.Duration
	var want []map[string]string
	for _, pairs := range []string{"80", "120"} {
		grow(t, whole, pairs)
		start := time.Now()
		if out, err := command(context.Background(), t, whole, "run", "job.yaml").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		took = max(took, time.Since(start))
		want = append(want, policyFiles(t, whole))
	}
	kill := killing{rng: rand.New(rand.NewPCG(5, 6)), took: took}
	killed, resumed := 0, 0
	for killed < slowKills {
		dir := jobWorld(t, killedJob)
		for day, pairs := range []string{"80", "120"} {
			grow(t, dir, pairs)
			for again := true; again; {
				cmd := command(context.Background(), t, dir, "run", "job.yaml")
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				timer := time.AfterFunc(kill.moment(), func() { cmd.Process.Kill() })
				err := cmd.Wait()
				timer.Stop()
				if again = err != nil; again {
					killed++
				}
				if again && cmd.ProcessState.ExitCode() >= 0 {
					t.Fatalf("%s: day %d ended by itself: %v", dir, day, err)
				}
			}
			kill.ended()
			sameContents(t, policyFiles(t, dir), want[day])
		}
		resumed += checkRecords(t, dir)
	}
	t.Logf("killed %d times, gone on with %d times, all policies equal", killed, resumed)
}

// policyFiles are those of the current policy that say nothing of when it was made.
func policyFiles(t *testing.T, dir string) map[string]string {
	t.Helper()
	current, err := filepath.EvalSymlinks(filepath.Join(dir, "policies", "current"))
	if err != nil {
		t.Fatal(err)
	}
	files := everything(t, current)
	delete(files, "version.json")
	delete(files, "SHA256SUMS")                 // of these two, too; the other files are compared themselves
	delete(files, "adapter/trainer_state.json") // holds paths, and the length of the metrics
	return files
}

func sameContents(t *testing.T, got, want map[string]string) {
	t.Helper()
	if len(got) != len(want) || len(want) < 5 {
		t.Errorf("got %d files, want %d", len(got), len(want))
	}
	for name, content := range want {
		if got[name] != content {
			t.Errorf("%s differs from that of an uninterrupted job", name)
		}
	}
}

// checkRecords wants one published run a day with what it computed, nothing half done, and
// counts the attempts that went on with a run.
func checkRecords(t *testing.T, dir string) (resumed int) {
	t.Helper()
	out, err := command(context.Background(), t, dir, "runs", "job.yaml", "--json").Output()
	if err != nil {
		t.Fatal(err)
	}
	var runs []job.Result
	if err := json.Unmarshal(out, &runs); err != nil {
		t.Fatal(err)
	}
	var pairs []int64
	for _, r := range runs {
		resumed += r.Attempts - 1
		switch r.Status {
		case job.Published:
			pairs = append(pairs, r.NewPairs)
		case job.Unchanged: // the kill came behind the last step
		default:
			t.Errorf("run %s is %s: %s", r.ID, r.Status, r.Reason)
		}
	}
	if len(pairs) != 2 || pairs[0] != 80 || pairs[1] != 40 {
		t.Errorf("the published runs computed %v pairs, want 80 and 40", pairs)
	}
	versions, err := os.ReadDir(filepath.Join(dir, "policies", "versions"))
	if err != nil || len(versions) != 2 {
		t.Errorf("there are %d versions (%v), want 2", len(versions), err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			t.Errorf("%s is left", e.Name())
		}
	}
	return resumed
}

// TestRolledBackBehindAKill rolls back what a run published before it was killed, with no note of
// that in its record. The next starts find nothing to do, and the earlier policy stays.
func TestRolledBackBehindAKill(t *testing.T) {
	dir := jobWorld(t, killedJob)
	run := func(args ...string) (out []byte) {
		t.Helper()
		out, err := command(t.Context(), t, dir, args...).Output()
		if err != nil {
			t.Fatalf("%v: %v", args, err)
		}
		return out
	}
	run("run", "job.yaml")
	want := policyFiles(t, dir)
	grow(t, dir, "120")
	var r job.Result
	if err := json.Unmarshal(run("run", "job.yaml", "--json"), &r); err != nil || r.Status != job.Published {
		t.Fatalf("%+v: %v", r, err)
	}
	killed := r.ID
	r.Status, r.Published, r.Finished = job.Running, "", time.Time{}
	r.Stages = r.Stages[:len(r.Stages)-1]
	text, err := json.Marshal(r)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "runs", killed, "result.json"), text, 0o666)
	}
	if err != nil {
		t.Fatal(err)
	}
	run("rollback", "policies")
	for i := range 2 {
		r = job.Result{}
		if err := json.Unmarshal(run("run", "job.yaml", "--json"), &r); err != nil || r.Status != job.Unchanged || (r.ID == killed) != (i == 0) {
			t.Fatalf("run %s is %s (%v), want it unchanged", r.ID, r.Status, err)
		}
		sameContents(t, policyFiles(t, dir), want)
	}
}

// TestAJobEndsInOrder interrupts the training of a job; the next start goes on with it and ends
// in the bytes of a job that was left alone.
func TestAJobEndsInOrder(t *testing.T) {
	long := strings.Replace(killedJob, "epochs: 4", "epochs: 20", 1)
	whole, dir := jobWorld(t, long), jobWorld(t, long)
	if out, err := command(context.Background(), t, whole, "run", "job.yaml").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	cmd := command(context.Background(), t, dir, "run", "job.yaml")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	awaitGlob(t, filepath.Join(dir, "runs/*/train/checkpoints/step-7"))
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	err := cmd.Wait()
	if cmd.ProcessState.ExitCode() != exitInterrupted || !strings.Contains(stderr.String(), "interrupted; the same command goes on where this run stopped") {
		t.Fatalf("interrupted: %v, says %q", err, stderr.String())
	}
	out, err := command(context.Background(), t, dir, "run", "job.yaml", "--json").Output()
	var r job.Result
	if err == nil {
		err = json.Unmarshal(out, &r)
	}
	if err != nil || r.Attempts != 2 || r.Status != job.Published {
		t.Fatalf("gone on with: %v: %s", err, out)
	}
	sameContents(t, policyFiles(t, dir), policyFiles(t, whole))
}

// awaitGlob waits until a pattern has a match.
func awaitGlob(t *testing.T, pattern string) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		if found, err := filepath.Glob(pattern); err != nil || len(found) > 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited for %s in vain", pattern)
		}
	}
}
