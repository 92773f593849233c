//go:build cgo && unix

package main

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/dpo-pipe/dpo-pipe/datasets/refcache"
	"github.com/dpo-pipe/dpo-pipe/internal/demo"
	"github.com/dpo-pipe/dpo-pipe/job"
	"github.com/dpo-pipe/dpo-pipe/store"
	"github.com/dpo-pipe/dpo-pipe/store/storetest"
)

// bucketJob is a job that has nothing of its own on a machine but the job file.
const bucketJob = `
model: s3://bkt/model
data: s3://bkt/data/pairs.jsonl
cache: {out: 's3://bkt/job/cache', part_pairs: 16}
train: {beta: 0.5, epochs: 2, batch_pairs: 4, save_every: 7, eval_frac: 0.2}
evaluation: {pairs: 's3://bkt/trusted/pairs.jsonl'}
gates: {min_accuracy: 0.5}
publish: {to: 's3://bkt/policies'}
runs: {path: 's3://bkt/job/runs'}
`

// pathJob is the same on paths.
const pathJob = `
model: model
data: pairs.jsonl
cache: {part_pairs: 16}
train: {beta: 0.5, epochs: 2, batch_pairs: 4, save_every: 7, eval_frac: 0.2}
evaluation: {pairs: trusted.jsonl}
gates: {min_accuracy: 0.5}
publish: {to: policies}
`

// requests are those that a server was asked, "GET /bkt/key".
type requests struct {
	mu  sync.Mutex
	all []string
}

func (q *requests) note(r *http.Request) (refused bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.all = append(q.all, r.Method+" "+r.URL.Path)
	return false
}

// take returns those since the last call that begin with one of the prefixes.
func (q *requests) take(prefixes ...string) (some []string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, line := range q.all {
		if slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(line, p) }) {
			some = append(some, line)
		}
	}
	q.all = nil
	return some
}

// keptWorld is a job in a bucket, beside the same on paths in folder dir. Each start is on a new
// machine.
type keptWorld struct {
	t        *testing.T
	dir      string
	text     string
	requests *requests
}

func newKeptWorld(t *testing.T, change ...string) *keptWorld {
	t.Helper()
	w := &keptWorld{t: t, requests: &requests{}}
	storeServer(t, w.requests.note)
	w.fill(change...)
	return w
}

// fill puts model and trusted pairs into the bucket. The changes are old and new texts of the job.
func (w *keptWorld) fill(change ...string) {
	w.t.Helper()
	replace := strings.NewReplacer(change...)
	w.text, w.dir = replace.Replace(bucketJob), jobWorld(w.t, replace.Replace(pathJob))
	w.push(filepath.Join(w.dir, demo.ModelDir), "s3://bkt/model")
	trusted := w.t.TempDir()
	if err := fewPairs(filepath.Join(w.dir, demo.DataFile), filepath.Join(trusted, "pairs.jsonl"), "24"); err != nil {
		w.t.Fatal(err)
	}
	w.push(trusted, "s3://bkt/trusted")
}

func (w *keptWorld) push(folder, url string) {
	w.t.Helper()
	if err := store.Push(w.t.Context(), folder, url, store.PushOptions{}); err != nil {
		w.t.Fatal(err)
	}
}

// grow makes the first n pairs the data of both jobs.
func (w *keptWorld) grow(n string) {
	w.t.Helper()
	grow(w.t, w.dir, n)
	data := w.t.TempDir()
	if err := fewPairs(filepath.Join(w.dir, demo.DataFile), filepath.Join(data, "pairs.jsonl"), n); err != nil {
		w.t.Fatal(err)
	}
	w.push(data, "s3://bkt/data")
}

// machine is a new one, with the job file in folder dir and an empty cache.
func (w *keptWorld) machine() (dir, cache string) {
	w.t.Helper()
	dir, cache = w.t.TempDir(), w.t.TempDir()
	w.t.Setenv(store.CacheVariable, cache)
	if err := os.WriteFile(filepath.Join(dir, "job.yaml"), []byte(w.text), 0o666); err != nil {
		w.t.Fatal(err)
	}
	return dir, cache
}

// says runs the job's command on a new machine, and wants an exit code and texts.
func (w *keptWorld) says(code int, args []string, texts ...string) string {
	w.t.Helper()
	dir, _ := w.machine()
	out, got := runs(w.t, dir, args...)
	if got != code {
		w.t.Fatalf("%q exits with %d, want %d:\n%s", args, got, code, out)
	}
	for _, text := range texts {
		if !strings.Contains(out, text) {
			w.t.Errorf("%q does not say %q:\n%s", args, text, out)
		}
	}
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(left) != 1 {
		w.t.Errorf("beside the job file there is %q, %v", left, err)
	}
	return out
}

// same wants the published policy of the job on paths, which is run now, in the bucket.
func (w *keptWorld) same() {
	w.t.Helper()
	must(w.t, w.dir, "run", "job.yaml")
	got := everything(w.t, fetched(w.t, "s3://bkt/policies/current"))
	for _, name := range []string{"version.json", "SHA256SUMS", "adapter/trainer_state.json"} {
		delete(got, name)
	}
	sameContents(w.t, got, policyFiles(w.t, w.dir))
}

// history is what runs says.
func (w *keptWorld) history() (all []job.Result) {
	w.t.Helper()
	dir, _ := w.machine()
	out, err := command(w.t.Context(), w.t, dir, "runs", "job.yaml", "--json").Output()
	if err == nil {
		err = json.Unmarshal(out, &all)
	}
	if err != nil {
		w.t.Fatalf("%v: %s", err, out)
	}
	return all
}

// objects lists what is below a key of the bucket, hidden objects too.
func objects(t *testing.T, below string) (names []string) {
	t.Helper()
	b, err := store.Open(t.Context(), "s3://bkt")
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	err = b.List(t.Context(), func(o store.Object) error {
		if strings.HasPrefix(o.Name, below) {
			names = append(names, o.Name+" "+o.Version)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// TestJobInABucket runs a job over four days, each on a new machine: what is new is computed, what
// is not is neither done again nor transferred.
func TestJobInABucket(t *testing.T) {
	t.Run("server in process", func(t *testing.T) { daysInABucket(t, newKeptWorld(t)) })
	t.Run("versitygw", func(t *testing.T) {
		storetest.Start(t, []string{"bkt"})
		w := &keptWorld{t: t}
		w.fill()
		daysInABucket(t, w)
	})
}

func daysInABucket(t *testing.T, w *keptWorld) {
	run := []string{"run", "job.yaml"}
	dry := append(slices.Clone(run), "--dry-run")
	w.grow("80")
	before := objects(t, "")
	w.says(exitDone, dry, "would begin a run", "80 pairs to compute: there is no cache")
	w.says(exitDone, []string{"runs", "job.yaml"}, "no runs yet")
	if after := objects(t, ""); !slices.Equal(after, before) {
		t.Errorf("--dry-run left %q", after)
	}
	w.says(exitDone, run, ": published", "80 pairs computed")
	w.same()

	w.grow("120")
	before = objects(t, "")
	w.says(exitDone, dry, "120 pairs: 80 reused, 40 computed, 0 dropped")
	if after := objects(t, ""); !slices.Equal(after, before) {
		t.Errorf("--dry-run changed %q", after)
	}
	w.says(exitDone, run, ": published", "120 pairs: 80 reused, 40 computed, 0 dropped", "is current, before it")
	w.same()

	if w.requests != nil {
		w.requests.take()
	}
	w.says(exitDone, run, ": unchanged", "precompute  reused", "was made from the same")
	if w.requests != nil {
		if moved := w.requests.take("GET /bkt/job/cache/part", "GET /bkt/job/cache/head", "GET /bkt/job/runs/2", "PUT /bkt/job/cache/"); len(onlyLarge(moved)) > 0 {
			t.Errorf("an unchanged night transfers %q", onlyLarge(moved))
		}
	}

	// Settings of the evaluation alone: training is that of the run before, brought from there.
	w.text = strings.Replace(w.text, "min_accuracy: 0.5", "min_accuracy: 0.5, published: 'off'", 1)
	w.text = strings.Replace(w.text, "'s3://bkt/policies'", "'s3://bkt/others'", 1)
	w.says(exitDone, run, ": published", "train       reused", "evaluate    ran", "export      ran")
	w.says(exitDone, dry, "train       skip")

	all := w.history()
	var told []string
	for _, r := range all {
		told = append(told, string(r.Status))
		if r.Attempts != 1 || r.HeldOut == 0 {
			t.Errorf("run %s has %d attempts and %d held-out pairs", r.ID, r.Attempts, r.HeldOut)
		}
	}
	if want := []string{"published", "published", "unchanged", "published"}; !slices.Equal(told, want) {
		t.Fatalf("the runs are %q, want %q", told, want)
	}
	w.runsKeep(all)
	second := "s3://bkt/job/runs/" + all[1].ID
	w.says(exitDone, []string{"inspect", "s3://bkt/job/cache"}, ": reference cache")
	w.says(exitDone, []string{"eval", "--cache", "s3://bkt/job/cache", "--checkpoint", second + "/train/last"}, "held-out pairs")
	config, err := os.ReadFile(filepath.Join(fetched(t, second), "train", "config.yaml"))
	if err != nil || !strings.Contains(string(config), "cache: s3://bkt/job/cache\n") {
		t.Errorf("the settings of training name another cache: %v\n%s", err, config)
	}
	for _, name := range []string{"config.yaml", "identities.json", "result.json", "log.jsonl", "evaluation.json", "report.html"} {
		if text, err := os.ReadFile(filepath.Join(fetched(t, second), name)); err != nil || len(text) == 0 || strings.Contains(string(text), "/store/work/") {
			t.Errorf("%s: %v, %d bytes, none of a work folder wanted", name, err, len(text))
		}
	}
	for _, name := range objects(t, "job/") {
		if strings.Contains(name, ".dpo-pipe-") || strings.Contains(name, "/policy/") {
			t.Errorf("%s is left", name)
		}
	}
}

// runsKeep wants runs.keep to remove what the oldest run trained, which no newer one uses, and no
// record.
func (w *keptWorld) runsKeep(all []job.Result) {
	w.t.Helper()
	was := w.text
	w.text = strings.Replace(was, "/job/runs'}", "/job/runs', keep: 2}", 1)
	w.says(exitDone, []string{"run", "job.yaml"}, ": unchanged")
	w.text = was
	for i, want := range []bool{false, true} {
		run := "job/runs/" + all[i].ID
		if got := len(objects(w.t, run+"/train/")) > 0; got != want {
			w.t.Errorf("what run %d trained is there: %v, want %v", i, got, want)
		}
		if len(objects(w.t, run+"/result.json")) != 1 {
			w.t.Errorf("run %d has no record", i)
		}
	}
}

// onlyLarge leaves the records of runs out.
func onlyLarge(lines []string) []string {
	return slices.DeleteFunc(lines, func(line string) bool {
		return strings.HasSuffix(line, "/result.json") || strings.HasSuffix(line, "/identities.json") || strings.HasSuffix(line, "/config.yaml") || strings.Contains(line, store.LockName)
	})
}

// TestOneJobInABucketAtATime keeps a second start out, on this machine and on others, until the
// first ended or was killed long ago.
func TestOneJobInABucketAtATime(t *testing.T) {
	w := newKeptWorld(t, "runs: {path: 's3://bkt/job/runs'}", "runs: {path: 's3://bkt/job/runs?region=us-east-1&profile='}")
	w.grow("80")
	for _, place := range []string{"s3://bkt/job/runs", "s3://bkt/job/cache"} {
		lock, err := store.Acquire(t.Context(), place)
		if err != nil {
			t.Fatal(err)
		}
		out := w.says(exitBusy, []string{"run", "job.yaml"}, `another run of this job is at work in "`+place+`": process `, " on host ")
		if strings.Contains(out, "region") {
			t.Errorf("options are shown:\n%s", out)
		}
		w.says(exitDone, []string{"run", "job.yaml", "--dry-run"}, "would begin a run")
		if err := lock.Release(); err != nil {
			t.Fatal(err)
		}
	}
	if left := objects(t, "job/"); len(left) != 0 {
		t.Errorf("who was kept out left %q", left)
	}
	dir, cache := w.machine()
	work, err := store.WorkFolder(cache, "s3://bkt/job/runs")
	if err != nil {
		t.Fatal(err)
	}
	first := command(t.Context(), t, dir, "run", "job.yaml")
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	awaitGlob(t, filepath.Join(work, "*", "config.yaml"))
	if out, code := runs(t, dir, "run", "job.yaml"); code != exitBusy || !strings.Contains(out, "is at work") {
		t.Errorf("a second start on the machine: exit %d\n%s", code, out)
	}
	w.t.Setenv(store.CacheVariable, t.TempDir())
	if out, code := runs(t, dir, "run", "job.yaml"); code != exitBusy || !strings.Contains(out, "is at work") {
		t.Errorf("a second start elsewhere: exit %d\n%s", code, out)
	}
	if err := first.Wait(); err != nil {
		t.Fatal(err)
	}
	w.says(exitDone, []string{"run", "job.yaml"}, ": unchanged")
}

// breakLocks removes what killed starts hold, as somebody does who can't wait.
func breakLocks(t *testing.T) {
	t.Helper()
	for _, place := range []string{"runs", "cache", "cache-evaluation"} {
		b, err := store.Open(t.Context(), "s3://bkt/job/"+place)
		if err == nil {
			err = b.Delete(t.Context(), store.LockName)
			b.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	b, err := store.Open(t.Context(), "s3://bkt/policies")
	if err == nil {
		err = b.Delete(t.Context(), store.LockName)
		b.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// stopped starts the job on a new machine and sends it a signal when a pattern below its store
// cache has a match.
func (w *keptWorld) stopped(pattern string, with os.Signal) (out string, code int) {
	w.t.Helper()
	dir, cache := w.machine()
	return stopAt(w.t, dir, filepath.Join(cache, "work", "*", pattern), with)
}

// stopAt starts the job in folder dir, sends it a signal when a pattern has a match, and returns
// what it said and its exit code, -1 behind SIGKILL.
func stopAt(t *testing.T, dir, pattern string, with os.Signal) (string, int) {
	t.Helper()
	cmd := command(context.Background(), t, dir, "run", "job.yaml")
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ended:
			t.Fatalf("it ended before there was %s:\n%s", pattern, out.String())
		case <-tick.C:
		}
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		if len(found) > 0 {
			break
		}
	}
	_ = cmd.Process.Signal(with) // it may have ended
	<-ended
	return out.String(), cmd.ProcessState.ExitCode()
}

// TestStoppedJobsInABucket interrupts the reference pass, then an update, then training. Each next
// start is on a new machine, goes on where the one before stopped, and the job ends in the bytes of
// one that was left alone.
func TestStoppedJobsInABucket(t *testing.T) {
	w := newKeptWorld(t, "epochs: 2", "epochs: 6")
	stop := func(pattern string) {
		t.Helper()
		w.requests.take()
		if out, code := w.stopped(pattern, syscall.SIGTERM); code != exitInterrupted {
			t.Fatalf("interrupted at %s: exit %d\n%s", pattern, code, out)
		}
	}
	w.grow("640")
	stop("cache/part-00001.arrow")
	if state, err := store.Look(t.Context(), "s3://bkt/job/cache", "manifest.json"); err != nil || state != (store.State{}) {
		t.Fatalf("readers of the cache see %+v, %v", state, err)
	}
	stop("runs/*/train/checkpoints/step-*")
	if parts := w.requests.take("GET /bkt/job/cache/.dpo-pipe-work/cache/part-"); len(parts) < 2 {
		t.Errorf("the pass went on with %q", parts)
	}
	checkpoint := w.requests.take
	w.says(exitDone, []string{"run", "job.yaml"}, ": published", "precompute  reused")
	if got := checkpoint("GET /bkt/job/runs/"); !slices.ContainsFunc(got, func(line string) bool { return strings.Contains(line, "/train/checkpoints/step-") }) {
		t.Errorf("training went on with %q", got)
	}
	w.same()
	w.grow("1280")
	next := refcache.Successor("cache")
	stop(next + "/part-00042.arrow")
	w.says(exitDone, []string{"run", "job.yaml"}, ": published", "1280 pairs: 640 reused, 640 computed, 0 dropped")
	if parts := w.requests.take("GET /bkt/job/cache/.dpo-pipe-work/" + next + "/part-00042"); len(parts) != 1 {
		t.Errorf("the update went on with %q", parts)
	}
	w.same()
	var attempts []int
	for _, r := range w.history() {
		attempts = append(attempts, r.Attempts)
	}
	if !slices.Equal(attempts, []int{3, 2}) {
		t.Errorf("the runs took %v attempts, want 3 and 2", attempts)
	}
	if keys := rawKeys(t, "s3://bkt/job/cache"); slices.ContainsFunc(keys, func(name string) bool { return strings.Contains(name, "work") }) {
		t.Errorf("work is left: %q", keys)
	}
}

// rawKeys are the hidden objects of a place.
func rawKeys(t *testing.T, url string) (names []string) {
	t.Helper()
	b, err := store.Open(t.Context(), store.Aside(url, ""))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := b.List(t.Context(), func(o store.Object) error { names = append(names, "work/"+o.Name); return nil }); err != nil {
		t.Fatal(err)
	}
	return names
}

// TestKilledJobsInABucket kills a job with SIGKILL at its stages, each start on a new machine. What
// readers see is whole at any time, and the job ends in the bytes of one that was left alone.
func TestKilledJobsInABucket(t *testing.T) {
	w := newKeptWorld(t)
	w.grow("80")
	for _, pattern := range []string{
		"runs/*/config.yaml", "cache/part-00001.arrow", "cache/manifest.json", "version", "runs/*/train/checkpoints/step-*", "runs/*/evaluation.json",
		"runs/*/policy/model.onnx",
	} {
		if out, code := w.stopped(pattern, syscall.SIGKILL); code != -1 {
			t.Fatalf("at %s it ended before it was killed: %s", pattern, out)
		}
		w.says(exitBusy, []string{"run", "job.yaml"}, "is at work")
		breakLocks(t)
		if state, err := store.Look(t.Context(), "s3://bkt/job/cache", "manifest.json"); err != nil || state.Foreign != "" {
			t.Fatalf("killed at %s, the cache is %+v, %v", pattern, state, err)
		} else if state.Marker != "" {
			w.says(exitDone, []string{"inspect", "s3://bkt/job/cache"}, "rows               80 in 5 parts")
		}
		for _, r := range w.history() {
			if r.Status != job.Interrupted {
				t.Errorf("killed at %s, run %s is %s", pattern, r.ID, r.Status)
			}
		}
	}
	w.says(exitDone, []string{"run", "job.yaml"}, ": published")
	w.same()
	w.says(exitDone, []string{"run", "job.yaml"}, ": unchanged")
}

// TestAJobInABucketOnOneMachine kills a job behind a checkpoint that nobody else has: the same
// machine goes on from there, unless another one wrote to the bucket meanwhile.
func TestAJobInABucketOnOneMachine(t *testing.T) {
	for _, other := range []bool{false, true} {
		w := newKeptWorld(t, "epochs: 2", "epochs: 6")
		w.grow("80")
		dir, cache := w.machine()
		checkpoints := filepath.Join(cache, "work", "*", "runs", "*", "train", "checkpoints")
		if out, code := stopAt(t, dir, filepath.Join(checkpoints, "step-*"), syscall.SIGKILL); code != -1 {
			t.Fatalf("it ended before it was killed:\n%s", out)
		}
		breakLocks(t)
		if other {
			w.says(exitDone, []string{"run", "job.yaml"}, ": published")
			t.Setenv(store.CacheVariable, cache)
			if out := must(t, dir, "run", "job.yaml"); !strings.Contains(out, ": unchanged") {
				t.Errorf("behind another machine:\n%s", out)
			}
			continue
		}
		trained := func() os.FileInfo {
			t.Helper()
			found, err := filepath.Glob(filepath.Dir(checkpoints))
			if err != nil || len(found) != 1 {
				t.Fatalf("trainings %q, %v", found, err)
			}
			info, err := os.Stat(found[0])
			if err != nil {
				t.Fatal(err)
			}
			return info
		}
		before := trained()
		resumed := command(context.Background(), t, dir, "run", "job.yaml", "--json")
		out, err := resumed.Output()
		var r job.Result
		if err == nil {
			err = json.Unmarshal(out, &r)
		}
		if err != nil || r.Attempts != 2 || r.Status != job.Published {
			t.Fatalf("gone on with: %v: %s", err, out)
		}
		if !os.SameFile(before, trained()) {
			t.Error("training began anew")
		}
		w.same()
	}
}

// TestTimeUpInABucket ends the start of a sweep when its time is up. The next one, on another
// machine, goes on with the run; those behind take the sweep, then the policy, from the bucket.
func TestTimeUpInABucket(t *testing.T) {
	w := newKeptWorld(t, "beta: 0.5, ", "", "eval_frac: 0.2}", "eval_frac: 0.2, sweep: {beta: [0.2, 0.5]}}")
	run := []string{"run", "job.yaml"}
	w.grow("80")
	w.says(exitTimeUp, append(slices.Clone(run), "--max-duration", "1ns"), ": time up")
	all := w.history()
	if len(all) != 1 || all[0].Status != job.TimeUp {
		t.Fatalf("the runs are %+v", all)
	}
	w.says(exitDone, run, "run "+all[0].ID+": published")
	w.same()
	w.text = strings.Replace(w.text, "publish: {to: 's3://bkt/policies'}\n", "", 1)
	w.says(exitDone, run, ": done", "train       reused", "evaluate    reused", "export      ran")
	policy := everything(t, fetched(t, "s3://bkt/job/runs/"+w.history()[1].ID+"/policy"))
	if want := policyFiles(t, w.dir); len(policy) == 0 || policy["model.onnx"] != want["model.onnx"] {
		t.Errorf("the policy that is published nowhere has %d files, and not the published model", len(policy))
	}
	w.says(exitDone, run, ": unchanged", "export      reused")
}

// TestARunThatLosesItsLock ends, and writes no more.
func TestARunThatLosesItsLock(t *testing.T) {
	w := newKeptWorld(t)
	w.grow("80")
	dir, cache := w.machine()
	cmd := command(context.Background(), t, dir, "run", "job.yaml")
	var b strings.Builder
	cmd.Stderr = &b
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	awaitGlob(t, filepath.Join(cache, "work", "*", "runs", "*", "train", "checkpoints", "step-*"))
	breakLocks(t)
	err := cmd.Wait()
	if cmd.ProcessState.ExitCode() != exitFailed || !strings.Contains(b.String(), "the lock is lost: it was removed") {
		t.Errorf("%v:\n%s", err, b.String())
	}
	if all := w.history(); len(all) != 1 || all[0].Status != job.Interrupted {
		t.Errorf("the runs are %+v", all)
	}
	if left := objects(t, "policies/"); len(left) != 0 {
		t.Errorf("it published %q", left)
	}
}
