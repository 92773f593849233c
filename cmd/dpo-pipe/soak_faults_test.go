//go:build cgo && linux

package main

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// soakFault is what may happen to a run.
type soakFault struct {
	name   string
	weight int // how often, of all weights
	most   int // times in a soak; 0 for any
	// arm happens before the run and gives what undoes it behind it, strike while it runs.
	arm    func(*soak) (undo func())
	strike func(*soak, *soakProcess)
	args   func(*soak) []string
	// sameData leaves the data to arm.
	sameData bool
	// hook is how the webhook behaves.
	hook string
	// codes are allowed beside what the data alone would give; killed by a signal is -1.
	codes []int
}

var (
	killedFault     = soakFault{name: "SIGKILL", weight: 14, strike: signalled(syscall.SIGKILL), codes: []int{-1}}
	twiceFault      = soakFault{name: "a second start", weight: 6, strike: twice}
	cacheFault      = soakFault{name: "damaged cache", weight: 6, arm: damages("cache*"), codes: []int{exitFailed}}
	checkpointFault = soakFault{
		name: "damaged checkpoint", weight: 6, sameData: true, arm: damageCheckpoint, codes: []int{exitFailed},
	}
	lockFault = soakFault{name: "locks left by the dead", weight: 5, arm: leaveLocks}
)

// soakFaults are all faults with how often they strike. The webhooks that are down or never
// answer hold a run for 21 and 60 seconds, so they are few.
func soakFaults() []soakFault {
	return []soakFault{
		{name: "none", weight: 20},
		killedFault,
		{name: "SIGTERM", weight: 9, strike: signalled(syscall.SIGTERM), codes: []int{exitInterrupted, -1}},
		{name: "--max-duration", weight: 8, args: shortTime, codes: []int{exitTimeUp}},
		twiceFault,
		{name: "rollback meanwhile", weight: 6, strike: rollBack, codes: []int{exitFailed}},
		{name: "full disk", weight: 8, arm: fillDisk, codes: []int{exitEnvironment}},
		cacheFault,
		checkpointFault,
		{name: "damaged policy", weight: 6, arm: damages("policies/versions/*", "policies/versions/*/adapter"), codes: []int{exitFailed}},
		{name: "damaged textfile", weight: 4, arm: damageText},
		{name: "truncated data", weight: 5, arm: truncateData, codes: []int{exitDone, exitData, exitGate}},
		lockFault,
		{name: "webhook fails once", weight: 3, hook: "once"},
		{name: "webhook is down", weight: 1, most: 4, hook: "down"},
		{name: "webhook never answers", weight: 1, most: 2, hook: "hangs"},
	}
}

// pick draws a fault.
func (s *soak) pick(faults []soakFault) soakFault {
	var all []soakFault
	for _, f := range faults {
		if f.name == "full disk" && !s.disk || f.most > 0 && s.report.times(f) >= f.most {
			continue
		}
		for range f.weight {
			all = append(all, f)
		}
	}
	return all[s.rng.IntN(len(all))]
}

// moment is some time within a run.
func (s *soak) moment() time.Duration { return time.Duration(s.rng.Float64() * float64(s.took)) }

func signalled(sig syscall.Signal) func(*soak, *soakProcess) {
	return func(s *soak, p *soakProcess) {
		time.Sleep(s.moment())
		p.cmd.Process.Signal(sig)
	}
}

func shortTime(s *soak) []string {
	return []string{"--max-duration", max(s.moment(), time.Millisecond).String()}
}

// twice starts the job a second time while it is at work. The lock's file may be of a process
// that was killed before.
func twice(s *soak, p *soakProcess) {
	lock, mine := filepath.Join(s.dir, "runs", ".lock"), fmt.Appendf(nil, "process %d ", p.cmd.Process.Pid)
	for p.running() {
		if holder, _ := os.ReadFile(lock); bytes.HasPrefix(holder, mine) {
			break
		}
		time.Sleep(time.Millisecond)
	}
	r := s.run("run", "job.yaml")
	if p.running() && (r.code != exitBusy || !strings.Contains(r.stderr, "another run of this job is at work")) {
		s.fail("a second start ended with exit code %d, want %d: %s", r.code, exitBusy, r.stderr)
	}
	if r.code == exitBusy {
		s.report.busy++
	}
}

// rollBack goes back to an earlier version while the job is at work.
func rollBack(s *soak, _ *soakProcess) {
	time.Sleep(s.moment())
	r := s.run("rollback", "policies")
	switch {
	case r.code == exitDone:
		s.report.rollbacks++
	case r.code == exitUsage && strings.Contains(r.stderr, "no version older"):
	case r.code == exitUsage && len(s.known) == 0:
	case r.code == exitFailed && strings.Contains(r.stderr, "in use by another process"):
	case r.code == exitFailed && len(s.damaged) > 0 && strings.Contains(r.stderr, "is damaged"):
	default:
		s.fail("rollback ended with exit code %d: %s", r.code, r.stderr)
	}
}

// fillDisk leaves little room, or none.
func fillDisk(s *soak) (undo func()) {
	ballast := filepath.Join(s.dir, "ballast")
	f, err := os.Create(ballast)
	s.must(err)
	defer f.Close()
	var st syscall.Statfs_t
	s.must(syscall.Statfs(s.dir, &st))
	room := s.rng.Int64N(3 << 20)
	s.must(syscall.Fallocate(int(f.Fd()), 0, 0, max(int64(st.Bavail)*st.Bsize-room, 1)))
	return func() { s.must(os.Remove(ballast)) }
}

// damage is what was done to a file.
type damage struct{ before, after []byte }

// damages flips a bit of a file below the newest match of one of the patterns, or cuts it.
func damages(patterns ...string) func(*soak) func() {
	return func(s *soak) func() {
		found, err := filepath.Glob(filepath.Join(s.dir, patterns[s.rng.IntN(len(patterns))]))
		s.must(err)
		if len(found) == 0 {
			return func() {}
		}
		var files []string
		s.must(filepath.WalkDir(found[len(found)-1], func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() && filepath.Base(path) != "version.json" {
				files = append(files, path)
			}
			return err
		}))
		if len(files) > 0 {
			path := files[s.rng.IntN(len(files))]
			s.damaged[path] = s.breakFile(path)
		}
		return func() {}
	}
}

// damageCheckpoint kills the job in its training and damages what it would go on from.
func damageCheckpoint(s *soak) func() {
	const pattern = "runs/*/train/checkpoints/step-*"
	checkpoints := func() []string {
		found, err := filepath.Glob(filepath.Join(s.dir, pattern))
		s.must(err)
		return found
	}
	s.vary()
	before := checkpoints()
	p := s.start("run", "job.yaml")
	for p.running() {
		if found := checkpoints(); len(found) > 0 && (len(before) == 0 || found[len(found)-1] > before[len(before)-1]) {
			p.cmd.Process.Kill()
			break
		}
		time.Sleep(time.Millisecond)
	}
	p.wait()
	return damages(pattern)(s)
}

func (s *soak) breakFile(path string) damage {
	before, err := os.ReadFile(path)
	s.must(err)
	after := slices.Clone(before)
	switch {
	case len(before) == 0:
	case s.rng.IntN(2) == 0:
		after = after[:s.rng.IntN(len(after))]
	default:
		after[s.rng.IntN(len(after))] ^= 1 << s.rng.IntN(8)
	}
	// Another file: a hard link to it elsewhere stays sound.
	s.must(os.Remove(path))
	s.must(os.WriteFile(path, after, 0o666))
	return damage{before, after}
}

func damageText(s *soak) func() {
	path := filepath.Join(s.dir, "soak.prom")
	if _, err := os.Stat(path); err == nil {
		s.breakFile(path)
	}
	return func() {}
}

// truncateData cuts the data within a run; the next has it whole.
func truncateData(s *soak) (undo func()) {
	path := filepath.Join(s.dir, "pairs.jsonl")
	whole, err := os.ReadFile(path)
	s.must(err)
	s.must(os.WriteFile(path, whole[:len(whole)/2+s.rng.IntN(len(whole)/2)], 0o666))
	return func() { s.must(os.WriteFile(path, whole, 0o666)) }
}

func leaveLocks(s *soak) func() {
	for _, dir := range []string{"runs", "policies", "cache"} {
		if _, err := os.Stat(filepath.Join(s.dir, dir)); err == nil {
			s.must(os.WriteFile(filepath.Join(s.dir, dir, ".lock"), []byte("process 4194304 on host elsewhere since 2026-01-02T03:04:05Z\n"), 0o666))
		}
	}
	return func() {}
}

// mend does what a person would who reads of a damaged file, and reports whether there was one:
// removes what is made anew, goes back to another version, or takes the file from a copy.
func (s *soak) mend(r soakResult) (mended bool) {
	for path, d := range s.damaged {
		if have, err := os.ReadFile(path); err != nil || !bytes.Equal(have, d.after) || bytes.Equal(d.before, d.after) {
			delete(s.damaged, path) // it is gone, or was replaced
		}
	}
	if r.code != exitFailed {
		return false
	}
	for path, d := range s.damaged {
		rel, err := filepath.Rel(s.dir, path)
		s.must(err)
		top := strings.Split(rel, string(filepath.Separator))
		switch {
		case strings.HasPrefix(top[0], "cache"):
			s.must(os.RemoveAll(filepath.Join(s.dir, top[0])))
		case top[0] == "runs":
			s.must(os.RemoveAll(filepath.Join(s.dir, "runs", top[1], "train")))
		case s.rng.IntN(2) == 0 && s.run("rollback", "policies").code == exitDone:
			s.report.rollbacks++
			continue // it stays damaged where it was
		default:
			s.must(os.WriteFile(path, d.before, 0o666))
		}
		delete(s.damaged, path)
		s.report.mended++
		mended = true
	}
	return mended
}

// soakHook is the webhook's server.
type soakHook struct {
	server *httptest.Server
	mu     sync.Mutex
	mode   string
	posts  int // answered well, since begin
	asked  int
}

func newSoakHook(t *testing.T) *soakHook {
	t.Helper()
	h := &soakHook{}
	h.server = httptest.NewServer(h)
	t.Cleanup(h.server.Close)
	return h
}

func (h *soakHook) begin(mode string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mode, h.posts, h.asked = mode, 0, 0
}

func (h *soakHook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	h.asked++
	mode, first := h.mode, h.asked == 1
	h.mu.Unlock()
	switch {
	case mode == "hangs":
		io.Copy(io.Discard, r.Body) // behind it the server notices who hangs up
		<-r.Context().Done()
	case mode == "down", mode == "once" && first, r.Header.Get("Authorization") != "Bearer "+soakToken:
		http.Error(w, "no", http.StatusServiceUnavailable)
	default:
		h.mu.Lock()
		h.posts++
		h.mu.Unlock()
	}
}

// told is how many posts arrived since begin.
func (h *soakHook) told() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.posts
}
