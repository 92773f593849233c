package job

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dpo-pipe/dpo-pipe/internal/atomicfile"
)

// record is a run in a history of made-up ones.
func record(t *testing.T, runs string, at int, set func(*Result)) *Result {
	t.Helper()
	r, err := createRun(runs, at, time.Unix(1_000_000-int64(at/100), 0))
	if err != nil {
		t.Fatal(err)
	}
	set(r)
	if err := r.save(); err != nil {
		t.Fatal(err)
	}
	return r
}

// TestFind looks for outcomes of earlier runs: the newest with the same inputs that is whole
// and still there.
func TestFind(t *testing.T) {
	runs := t.TempDir()
	trained := func(inputs string, done, kept bool) func(*Result) {
		return func(r *Result) {
			r.identities.Stages[StageTrain] = made{Inputs: inputs, Output: filepath.Join(r.ID, trainName), Done: done}
			if kept {
				if err := os.Mkdir(r.path(trainName), 0o777); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	record(t, runs, 1, trained("a", true, true))
	second := record(t, runs, 2, trained("a", true, true))
	record(t, runs, 3, trained("a", true, false)) // removed since
	record(t, runs, 4, trained("a", false, true)) // interrupted
	record(t, runs, 5, trained("b", true, true))
	earlier, err := readRuns(runs)
	if err != nil || len(earlier) != 5 {
		t.Fatalf("read %d records and %v, want 5", len(earlier), err)
	}
	x := &execution{cfg: &Config{Runs: Runs{Path: runs}}, kept: here{}, earlier: earlier}
	if r, m := x.find(StageTrain, "a"); r == nil || r.ID != second.ID || m.run() != second.ID {
		t.Errorf("found %+v, want run %s", m, second.ID)
	}
	if r, _ := x.find(StageTrain, "c"); r != nil {
		t.Errorf("found run %s for inputs that none had", r.ID)
	}
	if r, _ := x.find(StageExport, "a"); r != nil {
		t.Errorf("found run %s for another stage", r.ID)
	}
}

// TestUnfinished says which run the next start goes on with.
func TestUnfinished(t *testing.T) {
	for _, tc := range []struct {
		status Status
		same   bool
		want   bool
	}{
		{Running, true, true},
		{Interrupted, true, true},
		{TimeUp, true, true},
		{Failed, true, true},
		{Interrupted, false, false},
		{Published, true, false},
		{Done, true, false},
		{Unchanged, true, false},
		{Refused, true, false},
	} {
		runs := t.TempDir()
		c := Default()
		c.Runs.Path = runs
		x := &execution{cfg: &c}
		inputs, err := x.inputs()
		if err != nil {
			t.Fatal(err)
		}
		if !tc.same {
			inputs = "other"
		}
		r := record(t, runs, 1, func(r *Result) { r.Status, r.identities.Inputs = tc.status, inputs })
		if x.earlier, err = readRuns(runs); err != nil {
			t.Fatal(err)
		}
		last, _, err := x.unfinished()
		if err != nil || (last != nil) != tc.want || last != nil && last.ID != r.ID {
			t.Errorf("%s, same inputs %v: gone on with is %v (%v), want %v", tc.status, tc.same, last != nil, err, tc.want)
		}
	}
}

// TestKilledRunsLeaveNothing begins a run behind killed ones: one with a record and a half
// written file, one without a record. Another folder that lies there is left alone.
func TestKilledRunsLeaveNothing(t *testing.T) {
	write := func(path string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("half"), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	for _, same := range []bool{false, true} { // given up, gone on with
		runs := t.TempDir()
		c := Default()
		c.Runs.Path = runs
		x := &execution{cfg: &c, named: &c, kept: here{}, log: logger()}
		inputs, err := x.inputs()
		if err != nil {
			t.Fatal(err)
		}
		if !same {
			inputs = "other"
		}
		killed := record(t, runs, 1, func(r *Result) { r.identities.Inputs = inputs })
		half := killed.path(atomicfile.TempPrefix + "1")
		write(filepath.Join(half, "model.onnx"))
		unrecorded := filepath.Join(runs, "20260102T030405Z-2")
		write(filepath.Join(unrecorded, identitiesName))
		other := filepath.Join(runs, "notes", "text")
		write(other)
		if x.earlier, err = readRuns(runs); err != nil {
			t.Fatal(err)
		}
		if err := x.begin(t.Context()); err != nil || (x.run.ID == killed.ID) != same {
			t.Fatalf("began run %s: %v", x.run.ID, err)
		}
		for path, want := range map[string]bool{half: false, unrecorded: false, other: true, killed.path(resultName): true} {
			if _, err := os.Stat(path); (err == nil) != want {
				t.Errorf("same inputs %v: %s is there: %v, want %v", same, path, err == nil, want)
			}
		}
	}
}

// TestARunKilledBehindItsEndLeavesNothing begins a run behind one whose record says how it ended, and
// which was killed while it wrote something more.
func TestARunKilledBehindItsEndLeavesNothing(t *testing.T) {
	c := Default()
	c.Runs.Path = t.TempDir()
	x := &execution{cfg: &c, named: &c, kept: here{}, log: logger()}
	ended := record(t, c.Runs.Path, 1, func(r *Result) { r.Status = Published })
	half := ended.path(atomicfile.TempPrefix + "1")
	if err := os.WriteFile(half, []byte("half"), 0o666); err != nil {
		t.Fatal(err)
	}
	var err error
	if x.earlier, err = readRuns(c.Runs.Path); err != nil {
		t.Fatal(err)
	}
	if err := x.begin(t.Context()); err != nil || x.run.ID == ended.ID {
		t.Fatalf("began run %s: %v", x.run.ID, err)
	}
	if _, err := os.Stat(half); err == nil {
		t.Error("what was half written is there still")
	}
	if all, err := readRuns(c.Runs.Path); err != nil || len(all) != 2 || all[0].Status != Published {
		t.Errorf("the records are %v, %v, want that of the run that ended first", all, err)
	}
}

// TestLastSuccess looks for the newest run without an error.
func TestLastSuccess(t *testing.T) {
	runs := t.TempDir()
	if at, err := LastSuccess(filepath.Join(runs, "none")); err != nil || !at.IsZero() {
		t.Errorf("without runs: %v, %v", at, err)
	}
	for i, tc := range []struct {
		status Status
		want   int64
	}{{Refused, 0}, {Published, 2}, {Failed, 2}, {Refused, 2}, {Unchanged, 5}, {Running, 5}, {TimeUp, 5}, {Done, 8}, {Interrupted, 8}} {
		record(t, runs, i+1, func(r *Result) { r.Status, r.Finished = tc.status, time.Unix(int64(i+1), 0) })
		at, err := LastSuccess(runs)
		if err != nil || tc.want == 0 != at.IsZero() || tc.want != 0 && at.Unix() != tc.want {
			t.Errorf("behind a run that is %s: %v, %v, want second %d", tc.status, at, err, tc.want)
		}
	}
}

// TestInputs wants another identity for what moves a result, and the same for what does not.
func TestInputs(t *testing.T) {
	base := Default()
	of := func(set func(*Config)) string {
		c := base
		set(&c)
		id, err := (&execution{cfg: &c}).inputs()
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	want := of(func(*Config) {})
	for name, set := range map[string]func(*Config){
		"log_every": func(c *Config) { c.Train.LogEvery = 7 }, "save_every": func(c *Config) { c.Train.SaveEvery = 7 },
		"keep": func(c *Config) { c.Train.Keep = 7 }, "who is told": func(c *Config) { c.Notify.Textfile = "x.prom" },
		"runs": func(c *Config) { c.Runs.Keep = 3 },
	} {
		if of(set) != want {
			t.Errorf("%s makes another run", name)
		}
	}
	seen := map[string]string{want: "nothing"}
	for name, set := range map[string]func(*Config){
		"beta": func(c *Config) { c.Train.Beta = 7 }, "a sweep": func(c *Config) { c.Train.Sweep = Sweep{{Key: "beta", Values: []string{"1"}}} },
		"engine": func(c *Config) { c.Train.Engine = "gonum" }, "a gate": func(c *Config) { c.Gates.MaxKL = new(float64) },
		"comparison": func(c *Config) { c.Gates.Published = Off }, "export": func(c *Config) { c.Export.VerifyPairs = 7 },
		"place": func(c *Config) { c.Publish.To = "x" }, "breakdown": func(c *Config) { c.Evaluation.Breakdown = true },
	} {
		id := of(set)
		if seen[id] != "" {
			t.Errorf("%s is the same run as %s", name, seen[id])
		}
		seen[id] = name
	}
}

// TestNewPairsAddUp counts from the last published run on.
func TestNewPairsAddUp(t *testing.T) {
	for _, tc := range []struct {
		name    string
		earlier []Result
		want    bool // of 100, with 40 in this run
	}{
		{"first run", nil, false},
		{"refused before", []Result{{Status: Refused, NewPairs: 60}}, true},
		{"unchanged between", []Result{{Status: Refused, NewPairs: 59}, {Status: Unchanged}}, false},
		{"failed and interrupted", []Result{{Status: Failed, NewPairs: 30}, {Status: Interrupted, NewPairs: 30}}, true},
		{"published before", []Result{{Status: Refused, NewPairs: 60}, {Status: Published, NewPairs: 60}}, false},
		{"damaged, which may have been published", []Result{{Status: Refused, NewPairs: 60}, {Status: Damaged}}, false},
		{"refused behind a damaged one", []Result{{Status: Damaged}, {Status: Refused, NewPairs: 60}}, true},
	} {
		runs := t.TempDir()
		c := Default()
		c.Gates.MinNewPairs = 100
		x := &execution{cfg: &c, kept: here{}, log: logger()}
		for i := range tc.earlier {
			x.earlier = append(x.earlier, &tc.earlier[i])
		}
		x.run = record(t, runs, 1, func(r *Result) { r.NewPairs = 40 })
		err := x.enoughPairs(t.Context())
		if (err == nil) != tc.want || err != nil && !is[*GateError](err) {
			t.Errorf("%s: got %v, want met %v", tc.name, err, tc.want)
		}
	}
}

// TestChangedKeys compares a config with the record of an earlier one.
func TestChangedKeys(t *testing.T) {
	c, err := loaded(t, everything)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), configName)
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Write(file); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sum := sumOf(text)
	same, err := changedKeys(path, sum, &c)
	if err != nil || len(same) != 0 {
		t.Errorf("of itself changed %v and %v, want none", same, err)
	}
	c.Train.Epochs, c.Gates.MinAccuracy, c.Data[1].Weight, c.Publish.Keep = 9, nil, 2, 4
	changed, err := changedKeys(path, sum, &c)
	if want := []string{"data", "gates.min_accuracy", "publish.keep", "train.epochs"}; err != nil || !slices.Equal(changed, want) {
		t.Errorf("changed %v and %v, want %v", changed, err, want)
	}
	if none, err := changedKeys("", "", &c); err != nil || none == nil || len(none) != 0 {
		t.Errorf("without an earlier run: got %v and %v, want an empty list", none, err)
	}
	if unknown, err := changedKeys(path, sumOf(nil), &c); err == nil || unknown != nil {
		t.Errorf("of a file that is not what was written: got %v and %v, want an error", unknown, err)
	}
	if unknown, err := changedKeys(path+"-", sum, &c); err == nil || unknown != nil {
		t.Errorf("of a file that is gone: got %v and %v, want an error", unknown, err)
	}
}

// Damages of a file of a record, and what all of them have to do with.
var damages = map[string]func(path string) error{
	"cut": func(path string) error {
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		return os.Truncate(path, info.Size()/2)
	},
	"a digit changed": func(path string) error {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(path, bytes.Replace(text, []byte("1"), []byte("3"), 1), 0o666)
	},
	"missing":  os.Remove,
	"a folder": func(path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o777)) },
}

// TestDamagedRecords damages a file of one of three records, which is then named as damaged and
// stays where it is; the others are as they were, and a new run has the next number.
func TestDamagedRecords(t *testing.T) {
	for what, damage := range damages {
		for _, name := range []string{resultName, identitiesName} {
			for at := 1; at <= 3; at++ {
				t.Run(fmt.Sprintf("%s %s of run %d", name, what, at), func(t *testing.T) {
					damageRecord(t, name, at, damage)
				})
			}
		}
	}
}

func damageRecord(t *testing.T, name string, at int, damage func(string) error) {
	runs := t.TempDir()
	var all []*Result
	for n := 1; n <= 3; n++ {
		all = append(all, record(t, runs, n, func(r *Result) {
			r.Status = Published
			r.identities.Stages[StageTrain] = made{Inputs: fmt.Sprint(n), Output: filepath.Join(r.ID, trainName), Done: true}
			if err := errors.Join(os.Mkdir(r.path(trainName), 0o777), os.WriteFile(r.path(logName), nil, 0o666)); err != nil {
				t.Fatal(err)
			}
		}))
	}
	bad := all[at-1]
	if err := damage(bad.path(name)); err != nil {
		t.Fatal(err)
	}
	c := Default()
	c.Runs.Path = runs
	x := &execution{cfg: &c, named: &c, kept: here{}, log: logger()}
	var err error
	if x.earlier, err = readRuns(runs); err != nil || len(x.earlier) != 3 {
		t.Fatalf("read %d records and %v, want 3", len(x.earlier), err)
	}
	for i, r := range x.earlier {
		switch {
		case r.ID != all[i].ID || r.Number != i+1:
			t.Errorf("record %d is of run %s, number %d, want %s, %d", i, r.ID, r.Number, all[i].ID, i+1)
		case i == at-1 && (r.Status != Damaged || !strings.Contains(r.Reason, name)):
			t.Errorf("run %d is %s: %s, want it damaged and its file named", i+1, r.Status, r.Reason)
		case i != at-1 && r.Status != Published:
			t.Errorf("run %d is %s, want published", i+1, r.Status)
		}
		found, _ := x.find(StageTrain, fmt.Sprint(i+1))
		if want := i != at-1 || name == resultName; (found != nil) != want { // identities stand for themselves
			t.Errorf("what run %d trained is found: %v, want %v", i+1, found != nil, want)
		}
	}
	if err := x.begin(t.Context()); err != nil || x.run.Number != 4 {
		t.Fatalf("began run %d: %v, want number 4", x.run.Number, err)
	}
	if _, err := os.Stat(bad.path(trainName)); err != nil {
		t.Errorf("what the damaged run trained is gone: %v", err)
	}
}

// TestADamagedRunIsNotGoneOnWith has a newest run that was interrupted and began with the same.
func TestADamagedRunIsNotGoneOnWith(t *testing.T) {
	for what, damage := range damages {
		runs := t.TempDir()
		c := Default()
		c.Runs.Path = runs
		x := &execution{cfg: &c, named: &c, kept: here{}, log: logger(), start: time.Now()}
		inputs, err := x.inputs()
		if err != nil {
			t.Fatal(err)
		}
		r := record(t, runs, 1, func(r *Result) { r.identities.Inputs = inputs })
		if err := errors.Join(os.WriteFile(r.path(logName), nil, 0o666), damage(r.path(resultName))); err != nil {
			t.Fatal(err)
		}
		if x.earlier, err = readRuns(runs); err != nil {
			t.Fatal(err)
		}
		if err := x.begin(t.Context()); err != nil || x.run.ID == r.ID || x.run.Number != 2 {
			t.Errorf("%s: began run %s, number %d, %v, want another", what, x.run.ID, x.run.Number, err)
		}
		if all, err := readRuns(runs); err != nil || len(all) != 2 || all[0].Status != Damaged {
			t.Errorf("%s: the damaged record is not as it was: %v", what, err)
		}
	}
}

// TestLastSuccessIsNotGuessed wants an error where a damaged record may be the newest success, and
// the time where a newer run has it.
func TestLastSuccessIsNotGuessed(t *testing.T) {
	runs := t.TempDir()
	end := func(at int64) *Result {
		return record(t, runs, int(at), func(r *Result) { r.Status, r.Finished = Published, time.Unix(at, 0) })
	}
	end(1)
	bad := end(2)
	if err := os.WriteFile(bad.path(resultName), []byte("{"), 0o666); err != nil {
		t.Fatal(err)
	}
	if at, err := LastSuccess(runs); err == nil || !strings.Contains(err.Error(), resultName) {
		t.Errorf("behind a damaged record: %v, %v, want an error that names it", at, err)
	}
	end(3)
	if at, err := LastSuccess(runs); err != nil || at.Unix() != 3 {
		t.Errorf("behind a newer success: %v, %v, want second 3", at, err)
	}
}

// madeBefore is a place that knows of one version.
type madeBefore struct {
	Place
	inputs, version string
}

func (p madeBefore) Current() (version, folder string, ok bool, err error) { return "c", "", true, nil }

func (p madeBefore) Made(key, value string) (string, error) {
	if key == metaTrain && value == p.inputs {
		return p.version, nil
	}
	return "", nil
}

// TestPublishedBeforeADamagedRecord asks the place only where a record can't say what was published.
func TestPublishedBeforeADamagedRecord(t *testing.T) {
	for _, tc := range []struct {
		name    string
		earlier []*Result
		want    string
	}{
		{"no record", nil, ""},
		{"a sound one", []*Result{{Status: Failed}}, ""},
		{"a damaged one", []*Result{{Status: Damaged}, {Status: Failed}}, "v"},
		{"a sound one that says so", []*Result{{Published: "w", identities: identities{Stages: map[string]made{StageTrain: {Inputs: "a"}}}}, {Status: Damaged}}, "w"},
	} {
		x := &execution{place: madeBefore{inputs: "a", version: "v"}, earlier: tc.earlier}
		if got, err := x.publishedBefore("a"); got != tc.want || err != nil {
			t.Errorf("%s: version %q, %v, want %q", tc.name, got, err, tc.want)
		}
		if got, err := x.publishedBefore("b"); got != "" || err != nil {
			t.Errorf("%s, of other inputs: version %q, %v, want none", tc.name, got, err)
		}
	}
}

// TestRunNames wants runs of one second told apart, and the order of runs kept whatever the
// clock does.
func TestRunNames(t *testing.T) {
	runs := t.TempDir()
	var want []string
	for number := 1; number < 300; number += 20 { // the clock goes back with each hundred
		want = append(want, record(t, runs, number, func(*Result) {}).ID)
	}
	all, err := readRuns(runs)
	var got []string
	for _, r := range all {
		got = append(got, r.ID)
	}
	if err != nil || !slices.Equal(got, want) || len(slices.Compact(slices.Sorted(slices.Values(got)))) != len(want) {
		t.Errorf("got %v and %v, want %v", got, err, want)
	}
}
