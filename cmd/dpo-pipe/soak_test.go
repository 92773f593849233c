//go:build cgo && linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dpo-pipe/dpo-pipe/internal/demo"
)

// The soak's settings: how many runs (without it, a few with faults that take no time), the
// program that is run (else this test binary), the most minutes, the seed, and a folder for
// copies of what a failed check saw.
const (
	soakRuns    = "DPO_PIPE_SOAK"
	soakBinary  = "DPO_PIPE_SOAK_BINARY"
	soakMinutes = "DPO_PIPE_SOAK_MINUTES"
	soakSeed    = "DPO_PIPE_SOAK_SEED"
	soakKeep    = "DPO_PIPE_SOAK_KEEP"
)

// soakJob is small, so that a run takes a second or two, and has everything: gates on a
// trusted set and against the published policy, retention, a textfile and a webhook.
const soakJob = `
model: model
data: pairs.jsonl
cache: {part_pairs: 8, max_bad_frac: 0.05, features: f32}
train: {beta: 0.5, lr: 0.005, epochs: 2, batch_pairs: 4, save_every: 5, eval_frac: 0.1}
evaluation: {pairs: trusted.jsonl}
gates: {min_accuracy: 0.5}
publish: {to: policies, keep: 3}
runs: {keep: 3}
notify:
  textfile: soak.prom
  webhook: {url: "${SOAK_HOOK}", headers: {Authorization: "Bearer ${SOAK_TOKEN}"}}
`

// What soakJob says, for the checks.
const (
	soakVersions = 3
	soakBadFrac  = 0.05
	soakToken    = "token-that-nobody-may-read"
)

// soakTrusted rows are the evaluation's own; data have soakRows, give or take soakVaries, so that
// what a run takes can be compared with what an earlier one took.
const (
	soakTrusted = 32
	soakRows    = 48
	soakVaries  = 6
)

// soakErrors end a soak: what follows them says little.
const soakErrors = 10

// soak is a scheduled job, its world, and what was seen of it.
type soak struct {
	t    *testing.T
	rng  *rand.Rand
	base string // holds dir, other folders, and the copies of failures
	dir  string // of the job, a small disk of its own where that may be mounted
	disk bool
	hook *soakHook

	pool, rows [][]byte // rows to come, rows of the data
	bad        int      // unusable ones among them
	flipped    bool     // the labels
	took       time.Duration

	damaged     map[string]damage
	mended      bool    // by hand, behind the last run: the next is of the same data
	lastSuccess float64 // of the textfile
	spare       int     // versions over the limit that a run which could not end may leave
	known       map[string]bool
	errors      int
	report      soakReport
}

// TestSoak runs a job again and again while its data changes and faults strike, and checks
// after each run that everything is as it should be.
func TestSoak(t *testing.T) {
	if testing.Short() {
		t.Skip("takes many runs of the command")
	}
	n, faults := soakNumber(t, soakRuns, 0), soakFaults()
	inTurn := n == 0
	if inTurn {
		faults = []soakFault{{name: "none"}, killedFault, twiceFault, cacheFault, {name: "none"}, lockFault, checkpointFault}
		n = len(faults)
	}
	s := newSoak(t, uint64(soakNumber(t, soakSeed, 1)))
	start := time.Now()
	end := start.Add(time.Duration(soakNumber(t, soakMinutes, 30)) * time.Minute)
	for i := 0; i < n && time.Now().Before(end) && s.errors < soakErrors; i++ {
		f := faults[i%len(faults)]
		if !inTurn {
			f = s.pick(faults)
		}
		s.round(i, f)
	}
	s.finish(time.Since(start))
}

func soakNumber(t *testing.T, variable string, otherwise int) int {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", variable, err)
	}
	return n
}

func newSoak(t *testing.T, seed uint64) *soak {
	t.Helper()
	s := &soak{
		t: t, rng: rand.New(rand.NewPCG(seed, seed)), base: t.TempDir(), took: time.Second,
		damaged: map[string]damage{}, known: map[string]bool{}, report: newSoakReport(),
	}
	s.dir = filepath.Join(s.base, "job")
	for _, dir := range []string{s.dir, s.tmp()} {
		s.must(os.MkdirAll(dir, 0o777))
	}
	if err := syscall.Mount("tmpfs", s.dir, "tmpfs", 0, "size=256m"); err == nil {
		s.disk = true
		t.Cleanup(func() { syscall.Unmount(s.dir, 0) })
	} else {
		t.Logf("no disk is filled: may not mount a small one: %v", err)
	}
	s.hook = newSoakHook(t)
	s.must(demo.WriteTo(s.dir))
	data, err := os.ReadFile(filepath.Join(s.dir, demo.DataFile))
	s.must(err)
	lines := bytes.SplitAfter(bytes.TrimSpace(data), []byte("\n"))
	s.write("trusted.jsonl", lines[:soakTrusted])
	s.pool = lines[soakTrusted:]
	s.must(os.WriteFile(filepath.Join(s.dir, "job.yaml"), []byte(soakJob), 0o666))
	for range soakRows {
		s.add()
	}
	return s
}

// tmp is where the command has its temporary files.
func (s *soak) tmp() string { return filepath.Join(s.base, "tmp") }

// must is of what the soak itself does.
func (s *soak) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *soak) write(name string, lines [][]byte) {
	s.must(os.WriteFile(filepath.Join(s.dir, name), bytes.Join(lines, nil), 0o666))
}

func (s *soak) add() {
	i := s.rng.IntN(len(s.pool))
	s.rows = append(s.rows, bytes.TrimRight(s.pool[i], "\n"))
	s.pool = slices.Delete(s.pool, i, i+1)
}

// change is what a day does to the data. Often it is nothing, so that runs go on.
func (s *soak) change() {
	if len(s.known) == 0 || s.rng.IntN(10) >= 3 {
		s.vary()
	}
}

// vary adds, removes and edits rows; now and then some are unusable, or labels flipped.
func (s *soak) vary() {
	s.bad, s.flipped = 0, s.rng.IntN(8) == 0
	for range 1 + s.rng.IntN(3) {
		s.add()
	}
	for n := s.rng.IntN(4); n > 0 && len(s.rows) > soakRows-soakVaries || len(s.rows) > soakRows+soakVaries; n-- {
		i := s.rng.IntN(len(s.rows))
		s.pool = append(s.pool, s.rows[i])
		s.rows = slices.Delete(s.rows, i, i+1)
	}
	if s.rng.IntN(3) == 0 {
		i := s.rng.IntN(len(s.rows))
		s.rows[i] = bytes.Replace(s.rows[i], []byte(`"chosen":" `), []byte(`"chosen":" Well. `), 1)
	}
	switch s.rng.IntN(12) {
	case 0, 1:
		s.bad = 1
	case 2:
		s.bad = 6
	}
	lines := make([][]byte, 0, len(s.rows)+s.bad)
	for _, row := range s.rows {
		lines = append(lines, append(slices.Clone(row), '\n'))
	}
	for i := range s.bad {
		lines = slices.Insert(lines, s.rng.IntN(len(lines)), fmt.Appendf(nil, "{\"id\": \"bad-%d\", \"prompt\": \"x\"}\n", i))
	}
	s.write("pairs.jsonl", lines)
	if s.flipped {
		s.must(flipLabels(filepath.Join(s.dir, "pairs.jsonl")))
	}
}

// wanted are the exit codes of a run that no fault meets.
func (s *soak) wanted() int {
	switch {
	case float64(s.bad) > soakBadFrac*float64(s.bad+len(s.rows)):
		return exitData
	case s.flipped:
		return exitGate
	}
	return exitDone
}

// round is a day: other data, a fault, a run, its checks, and what a person does about it.
func (s *soak) round(i int, f soakFault) {
	if !s.mended && !f.sameData {
		s.change()
	}
	errors := s.errors
	undo := func() {}
	if f.arm != nil {
		undo = f.arm(s)
	}
	s.hook.begin(f.hook)
	p := s.start(append([]string{"run", "job.yaml"}, s.argsOf(f)...)...)
	if f.strike != nil {
		f.strike(s, p)
	}
	r := p.wait()
	undo()
	s.report.count(f, r)
	if r.code == exitDone && f.hook == "" {
		s.took = max(s.took*9/10, r.took)
	}
	s.check(f, r)
	if s.errors > errors {
		s.t.Logf("run %d, fault %s, exit code %d, data: %d rows, %d bad, flipped %v, damaged %v\n%s%s", i, f.name, r.code,
			len(s.rows), s.bad, s.flipped, slices.Collect(maps.Keys(s.damaged)), r.stdout, r.stderr)
		s.keep(i)
	}
	s.mended = s.mend(r)
}

func (s *soak) argsOf(f soakFault) []string {
	if f.args == nil {
		return nil
	}
	return f.args(s)
}

// fail notes an error; rounds go on.
func (s *soak) fail(format string, args ...any) {
	s.t.Helper()
	s.errors++
	s.t.Errorf(format, args...)
}

// keep copies the job's folder as a failed check saw it.
func (s *soak) keep(i int) {
	if to := os.Getenv(soakKeep); to != "" {
		s.must(exec.Command("cp", "-a", s.dir, filepath.Join(to, fmt.Sprint("run-", i))).Run())
	}
}

// soakProcess is a run of the command.
type soakProcess struct {
	cmd            *exec.Cmd
	stdout, stderr bytes.Buffer
	start          time.Time
	done           chan struct{}
	watched        chan watched
}

// watched is the most that was seen of a process.
type watched struct {
	peak        int64 // bytes resident
	descriptors int
}

// soakResult is how a run of the command ended.
type soakResult struct {
	code           int // -1: by a signal
	signal         syscall.Signal
	stdout, stderr string
	took           time.Duration
	watched
}

// soakHang is longer than any run takes, one with a webhook that never answers too.
const soakHang = 4 * time.Minute

func (s *soak) start(args ...string) *soakProcess { return s.startIn(s.dir, args...) }

func (s *soak) startIn(dir string, args ...string) *soakProcess {
	cmd := command(context.Background(), s.t, dir, args...)
	if binary := os.Getenv(soakBinary); binary != "" {
		cmd.Path = binary
	}
	cmd.Env = append(cmd.Env, "TMPDIR="+s.tmp(), "SOAK_HOOK="+s.hook.server.URL, "SOAK_TOKEN="+soakToken)
	p := &soakProcess{cmd: cmd, start: time.Now(), done: make(chan struct{}), watched: make(chan watched, 1)}
	cmd.Stdout, cmd.Stderr = &p.stdout, &p.stderr
	s.must(cmd.Start())
	go p.watch()
	return p
}

// watch looks every few milliseconds how much memory and how many descriptors the process has.
func (p *soakProcess) watch() {
	proc := fmt.Sprintf("/proc/%d", p.cmd.Process.Pid)
	var w watched
	for {
		status, _ := os.ReadFile(filepath.Join(proc, "status"))
		if _, rest, found := strings.Cut(string(status), "VmHWM:"); found {
			kB, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			w.peak = max(w.peak, kB<<10)
		}
		fds, _ := os.ReadDir(filepath.Join(proc, "fd"))
		w.descriptors = max(w.descriptors, len(fds))
		select {
		case <-p.done:
			p.watched <- w
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (p *soakProcess) wait() soakResult {
	timer := time.AfterFunc(soakHang, func() { p.cmd.Process.Signal(syscall.SIGQUIT) })
	p.cmd.Wait() // its error is the exit code
	timer.Stop()
	close(p.done)
	r := soakResult{
		code: p.cmd.ProcessState.ExitCode(), stdout: p.stdout.String(), stderr: p.stderr.String(),
		took: time.Since(p.start), watched: <-p.watched,
	}
	if status := p.cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signaled() {
		r.signal = status.Signal()
	}
	return r
}

// running reports a process that has not been waited for and is no zombie.
func (p *soakProcess) running() bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return false
	}
	_, state, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(state, "Z")
}

// run runs the command to its end.
func (s *soak) run(args ...string) soakResult { return s.start(args...).wait() }
