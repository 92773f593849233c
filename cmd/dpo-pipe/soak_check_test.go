//go:build cgo && linux

package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/dpo-pipe/dpo-pipe/datasets/refcache"
	"github.com/dpo-pipe/dpo-pipe/job"
	"github.com/dpo-pipe/dpo-pipe/publish"
)

// check holds the world behind a run against what must be true of it.
func (s *soak) check(f soakFault, r soakResult) {
	s.checkCode(f, r)
	finished := r.code == exitDone || r.code == exitGate
	all := s.checkRecords(f, r)
	s.checkVersions(f, r, all)
	s.checkText()
	s.checkFiles(finished)
	if told := s.hook.told(); r.code >= 0 && (f.hook == "" || f.hook == "once") && told != 1 && f.name != twiceFault.name {
		s.fail("the webhook was told %d times, want once", told)
	}
	s.report.measure(s, r, finished)
}

// checkCode wants the exit code that the data ask for, or one of those that the fault allows.
func (s *soak) checkCode(f soakFault, r soakResult) {
	want := append([]int{s.wanted()}, f.codes...)
	if worse(r.stderr) {
		want = append(want, exitGate)
	}
	if len(s.damaged) > 0 {
		want = append(want, exitFailed)
	}
	if !slices.Contains(want, r.code) {
		s.fail("exit code %d, want one of %v", r.code, want)
		return
	}
	switch {
	case r.signal == syscall.SIGTERM && r.stderr != "":
		s.fail("SIGTERM ended it in the midst")
	case r.code == exitFailed && strings.Contains(r.stderr, "in use by another process") && f.name == "rollback meanwhile":
	case r.code == exitFailed && !s.names(r.stderr):
		s.fail("the error names none of the damaged files")
	case r.code > 0 && !strings.Contains(r.stderr, "dpo-pipe: error: ") && r.code != exitInterrupted:
		s.fail("exit code %d without an error", r.code)
	}
}

// worse reports a refusal because the policy is worse than the published one, by figures of which
// that is true: on so few pairs, changed so often, it happens. Of the pairs on which one policy
// alone is right the published one has so many by chance, either way, with less than 0.05
// (McNemar, exact: twice the tail of a fair coin).
func worse(text string) bool {
	_, figures, found := strings.Cut(text, "the published policy's ")
	var published, p float64
	var here, there int
	_, err := fmt.Sscanf(figures, "%g (%d pairs right here alone, %d there alone, p = %g)", &published, &here, &there, &p)
	if !found || err != nil || here >= there {
		return false
	}
	n := here + there
	tail, ways := 0.0, 1.0
	for k := range here + 1 {
		tail += ways
		ways *= float64(n-k) / float64(k+1)
	}
	exact := 2 * tail / math.Pow(2, float64(n))
	return exact < 0.05 && math.Abs(p-exact) < 0.001
}

func TestWorse(t *testing.T) {
	const text = "rewards/accuracies is 0.78, the published policy's 0.97 (%s), want not worse"
	for figures, want := range map[string]bool{
		"0 pairs right here alone, 6 there alone, p = 0.031": true,  // 2 / 2^6
		"1 pairs right here alone, 8 there alone, p = 0.039": true,  // 2 (1 + 9) / 2^9
		"0 pairs right here alone, 5 there alone, p = 0.063": false, // 2 / 2^5
		"0 pairs right here alone, 6 there alone, p = 0.016": false, // one side of it
		"6 pairs right here alone, 0 there alone, p = 0.031": false, // better
	} {
		if got := worse(fmt.Sprintf(text, figures)); got != want {
			t.Errorf("%s: %v, want %v", figures, got, want)
		}
	}
	if worse("rewards/accuracies is 0.4, want at least 0.5") {
		t.Error("another gate's refusal is taken for this one's")
	}
}

// names reports whether text names a damaged file, or the cache that it is of.
func (s *soak) names(text string) bool {
	for path := range s.damaged {
		rel, _ := filepath.Rel(s.dir, path)
		top, _, _ := strings.Cut(rel, string(filepath.Separator))
		if strings.Contains(text, filepath.Base(path)) || strings.HasPrefix(top, "cache") && strings.Contains(text, top) {
			return true
		}
	}
	return false
}

// statuses are how a record may say that a run ended with an exit code.
var statuses = map[int][]job.Status{
	exitDone: {job.Published, job.Unchanged}, exitGate: {job.Refused}, exitTimeUp: {job.TimeUp}, -1: {job.Interrupted, job.Published, job.Unchanged, job.Refused, job.Failed, job.TimeUp},
}

// checkRecords reads the records; the newest must say how the run ended.
func (s *soak) checkRecords(f soakFault, r soakResult) (all []job.Result) {
	out := s.run("runs", "job.yaml", "--json")
	if err := json.Unmarshal([]byte(out.stdout), &all); out.code != exitDone || err != nil {
		s.fail("runs ended with exit code %d (%v): %s", out.code, err, out.stderr)
		return nil
	}
	if len(all) == 0 || f.name == twiceFault.name {
		return all
	}
	last := all[len(all)-1]
	if want, ok := statuses[r.code]; ok && !slices.Contains(want, last.Status) {
		s.fail("exit code %d, but run %s is %s", r.code, last.ID, last.Status)
	}
	for i := 1; i < len(all); i++ {
		if all[i].Number <= all[i-1].Number {
			s.fail("runs %s and %s have numbers %d and %d", all[i-1].ID, all[i].ID, all[i-1].Number, all[i].Number)
		}
	}
	return all
}

// checkVersions wants current to lead to a whole version, no more of them than the job keeps,
// and of a published run that it is published, some with the bytes of a job without faults.
func (s *soak) checkVersions(f soakFault, r soakResult, all []job.Result) {
	place, err := publish.Open(filepath.Join(s.dir, "policies"))
	s.must(err)
	current, folder, ok, err := place.Current()
	if err != nil {
		s.fail("current: %v", err)
	}
	if !ok {
		if len(s.known) > 0 {
			s.fail("nothing is current any more")
		}
		return
	}
	versions, err := place.Versions()
	if err != nil {
		s.fail("versions: %v", err)
	}
	if !slices.ContainsFunc(versions, func(v publish.Version) bool { return v.Name == current }) {
		s.fail("current leads to %q, which is no version", current)
	}
	for _, v := range versions {
		s.checkHashes(filepath.Join(s.dir, "policies", "versions", v.Name), v.Files)
	}
	if r.code == exitDone && len(all) > 0 && all[len(all)-1].Status == job.Published {
		s.spare = 0
		if last := all[len(all)-1]; f.strike == nil && (current != last.ID || last.Published != last.ID) {
			s.fail("run %s is published as %q, but current is %q", last.ID, last.Published, current)
		}
	} else if r.code != exitDone {
		s.spare = 1
	}
	if len(versions) > soakVersions+s.spare {
		s.fail("there are %d versions, want at most %d", len(versions), soakVersions+s.spare)
	}
	if s.known[current] {
		return
	}
	s.known[current] = true
	s.report.published++
	if f.name != "truncated data" && (s.mended || len(s.damaged) > 0 || s.rng.IntN(6) == 0) {
		s.checkFresh(folder)
	}
}

func (s *soak) checkHashes(folder string, files []publish.File) {
	for _, want := range files {
		path := filepath.Join(folder, filepath.FromSlash(want.Path))
		data, err := os.ReadFile(path)
		sum := sha256.Sum256(data)
		if _, known := s.damaged[path]; !known && (err != nil || hex.EncodeToString(sum[:]) != want.SHA256) {
			s.fail("%s is not what was published (%v)", path, err)
		}
	}
}

// checkFresh compares a published policy with those of two jobs that no fault met: one over
// the same cache, whose policy has the same bytes, and one over the same data, whose cache is
// as far from this one as batches of other pairs make it.
func (s *soak) checkFresh(policy string) {
	cache := filepath.Join(s.dir, "cache")
	if !s.broken("cache") {
		twin := s.twin("twin")
		s.must(os.CopyFS(filepath.Join(twin, "cache"), os.DirFS(cache)))
		if s.runTwin(twin) && len(s.differing(policy, twin)) > 0 {
			s.fail("%v differ from those of a job without faults", s.differing(policy, twin))
		}
		s.must(os.RemoveAll(twin))
	}
	fresh := s.twin("fresh")
	defer os.RemoveAll(fresh)
	if !s.runTwin(fresh) {
		return
	}
	s.report.compared++
	if len(s.differing(policy, fresh)) == 0 {
		s.report.equal++
	}
	if s.broken("cache") {
		return
	}
	far := s.farthest(cache, filepath.Join(fresh, "cache"))
	s.report.farthest = max(s.report.farthest, far)
	if !(far <= batchTolerance) {
		s.fail("the cache is %g from a fresh one, allowed %g", far, batchTolerance)
	}
}

// broken reports a damaged file below a folder of the job whose name begins with top.
func (s *soak) broken(top string) bool {
	for path := range s.damaged {
		if strings.HasPrefix(path, filepath.Join(s.dir, top)) {
			return true
		}
	}
	return false
}

// twin is a new folder with the job, its model and its data, that tells nobody.
func (s *soak) twin(name string) string {
	dir := filepath.Join(s.base, name)
	s.must(os.MkdirAll(dir, 0o777))
	s.must(os.CopyFS(filepath.Join(dir, "model"), os.DirFS(filepath.Join(s.dir, "model"))))
	for _, name := range []string{"pairs.jsonl", "trusted.jsonl"} {
		data, err := os.ReadFile(filepath.Join(s.dir, name))
		s.must(err)
		s.must(os.WriteFile(filepath.Join(dir, name), data, 0o666))
	}
	text, _, _ := strings.Cut(soakJob, "notify:")
	s.must(os.WriteFile(filepath.Join(dir, "job.yaml"), []byte(text), 0o666))
	return dir
}

func (s *soak) runTwin(dir string) bool {
	r := s.startIn(dir, "run", "job.yaml").wait()
	if r.code != exitDone {
		s.fail("a job without faults over the same data ended with exit code %d: %s", r.code, r.stderr)
	}
	return r.code == exitDone
}

// differing are the files of a policy that are not those of a twin's.
func (s *soak) differing(policy, twin string) (names []string) {
	want, got := policyFiles(s.t, twin), everything(s.t, policy)
	for name, content := range want {
		if name != "SHA256SUMS" && got[name] != content { // which has the trainer state's
			names = append(names, name)
		}
	}
	return names
}

// farthest is the largest distance of two caches' numbers; of other pairs it is infinite.
func (s *soak) farthest(a, b string) (far float64) {
	have, err := refcache.Open(a)
	s.must(err)
	defer have.Close()
	want, err := refcache.Open(b)
	s.must(err)
	defer want.Close()
	if have.Len() != want.Len() {
		return math.Inf(1)
	}
	for i := range have.Len() {
		var x, y refcache.Row
		s.must(errors.Join(have.Row(i, &x), want.Row(i, &y)))
		if x.Content() != y.Content() {
			return math.Inf(1)
		}
		far = max(far, distance(x.ChosenRefLogps, y.ChosenRefLogps), distance(x.RejectedRefLogps, y.RejectedRefLogps),
			distance(x.ChosenFeatures, y.ChosenFeatures), distance(x.RejectedFeatures, y.RejectedFeatures))
	}
	return far
}

// checkText parses the textfile. The last success never goes back.
func (s *soak) checkText() {
	path := filepath.Join(s.dir, "soak.prom")
	f, err := os.Open(path)
	if err != nil {
		if s.lastSuccess > 0 {
			s.fail("textfile: %v", err)
		}
		return
	}
	defer f.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(f)
	if err != nil {
		s.fail("textfile: %v", err)
		return
	}
	at := 0.0
	for _, m := range families["dpo_pipe_last_success_timestamp_seconds"].GetMetric() {
		at = m.GetGauge().GetValue()
	}
	if at < s.lastSuccess {
		s.fail("the last success was at %.3f and is at %.3f", s.lastSuccess, at)
	}
	s.lastSuccess = at
}

// checkFiles counts what lies there. Behind a run that came to its end nothing is left over.
func (s *soak) checkFiles(finished bool) {
	var left []string
	for _, root := range []string{s.dir, s.tmp()} {
		s.must(filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || path == root {
				return err
			}
			name := d.Name()
			if name == ".lock" { // which means nothing by itself
				return nil
			}
			if d.IsDir() && name == "train" { // goes with the run that was given up
				return fs.SkipDir
			}
			if root == s.tmp() || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "soak.prom") && name != "soak.prom" {
				left = append(left, path)
			}
			return nil
		}))
	}
	if finished && len(left) > 0 {
		s.fail("left over: %q", left)
	}
	s.report.leftovers = max(s.report.leftovers, len(left))
	for _, path := range left { // told once
		if finished {
			os.RemoveAll(path)
		}
	}
}

// size counts files and bytes below dir that are no records, and the records.
func (s *soak) size() (files, bytes, records int64) {
	s.must(filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(s.dir, path)
		if parts := strings.Split(rel, string(filepath.Separator)); parts[0] == "runs" && len(parts) == 3 {
			records += info.Size()
			return nil
		}
		files++
		bytes += info.Size()
		return nil
	}))
	return files, bytes, records
}

// finish checks what only many runs show, and prints the table.
func (s *soak) finish(took time.Duration) {
	for path, content := range everything(s.t, filepath.Join(s.dir, "runs")) {
		if strings.Contains(content, soakToken) {
			s.fail("%s has the secret", path)
		}
	}
	out := s.run("runs", "job.yaml", "--json")
	var all []job.Result
	s.must(json.Unmarshal([]byte(out.stdout), &all))
	s.report.check(s)
	s.t.Log("\n" + s.report.table(all, took) + fmt.Sprintf("%d checks failed\n", s.errors))
}
