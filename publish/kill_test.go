//go:build unix

package publish

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// The test binary is a process to be killed where these say the place, the step of a history,
// and at which moment.
const (
	killPlaceVar = "DPO_PIPE_TEST_PLACE"
	killStepVar  = "DPO_PIPE_TEST_STEP"
	killAtVar    = "DPO_PIPE_TEST_KILL_AT"
	killFromVar  = "DPO_PIPE_TEST_POLICY"
)

func TestMain(m *testing.M) {
	dir := os.Getenv(killPlaceVar)
	if dir == "" {
		os.Exit(m.Run())
	}
	at, err := strconv.Atoi(os.Getenv(killAtVar))
	if err != nil {
		panic(err)
	}
	ctx := &killer{Context: context.Background(), left: at}
	p := &Place{path: dir, store: killed{folder{dir}, ctx}}
	switch os.Getenv(killStepVar) {
	case "publish":
		err = p.Publish(ctx, "d", os.Getenv(killFromVar), nil)
	case "rollback":
		_, _, err = p.Rollback(ctx, "a")
	case "retain":
		_, err = p.Retain(ctx, 1)
	}
	if err != nil {
		panic(err)
	}
}

// killer kills the process when its Err is called once more than left: the code under test
// does so between the pieces of a file, and killed around every call of the storage.
type killer struct {
	context.Context
	left int
}

func (k *killer) Err() error {
	if k.left == 0 {
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
	k.left--
	return nil
}

// killed is a storage with a moment to be killed at before and behind every change.
type killed struct {
	folder
	ctx *killer
}

func (s killed) change(f func() error) error {
	s.ctx.Err()
	err := f()
	s.ctx.Err()
	return err
}

func (s killed) lock(ctx context.Context) (unlock func() error, err error) {
	err = s.change(func() (err error) { unlock, err = s.folder.lock(ctx); return err })
	return unlock, err
}

func (s killed) add(ctx context.Context, v Version, from string) error {
	return s.change(func() error { return s.folder.add(ctx, v, from) })
}

func (s killed) describe(ctx context.Context, v Version) error {
	return s.change(func() error { return s.folder.describe(ctx, v) })
}

func (s killed) remove(ctx context.Context, version string) error {
	return s.change(func() error { return s.folder.remove(ctx, version) })
}

func (s killed) point(ctx context.Context, version string) error {
	return s.change(func() error { return s.folder.point(ctx, version) })
}

// TestKilledAtEveryMoment kills each writer at every moment it has, wants the place as it was
// or as it shall be, whole either way, and then the same step to end as if nothing had been.
func TestKilledAtEveryMoment(t *testing.T) {
	for _, tc := range []struct{ name, again, old, current, after string }{
		{"publish", "publish d", "c", "d", "d: a b c d"},
		{"rollback", "rollback a", "c", "a", "a: a [b] [c]"},
		{"retain", "retain 1", "c", "c", "c: b c"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			from := named(t, "d")
			for at := 0; ; at++ {
				dir := t.TempDir()
				p := open(t, dir)
				for _, step := range []string{"publish a", "publish b", "publish c"} {
					must(t, do(t, p, dir, step))
				}
				done := killAt(t, tc.name, dir, from, at)
				current := whole(t, p, dir)
				if current != tc.old && current != tc.current || done && current != tc.current {
					t.Errorf("killed at %d: current is %q", at, current)
				}
				must(t, do(t, p, dir, tc.again))
				whole(t, p, dir)
				if got := history(t, p); got != tc.after {
					t.Errorf("killed at %d and done again: %q, want %q", at, got, tc.after)
				}
				for path := range tree(t, dir) {
					if strings.Contains(path, ".dpo-pipe-tmp-") || strings.HasSuffix(path, ".lock") {
						t.Errorf("killed at %d and done again, %q is left", at, path)
					}
				}
				if done {
					if at < 4 { // a lock and a change have two moments each
						t.Errorf("it had only %d moments", at)
					}
					return
				}
			}
		})
	}
}

// killAt takes a step in a process that is killed at a moment; done says that it ended before.
func killAt(t *testing.T, step, dir, from string, at int) (done bool) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), killPlaceVar+"="+dir, killStepVar+"="+step, killAtVar+"="+strconv.Itoa(at), killFromVar+"="+from)
	out, err := cmd.CombinedOutput()
	if err == nil {
		return true
	}
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("%s: %v: %s", step, err, out)
	}
	return false
}

// whole wants every version to be what was published, and returns the current one, read
// through the link.
func whole(t *testing.T, p *Place, dir string) (current string) {
	t.Helper()
	all, err := p.Versions()
	must(t, err)
	for _, v := range all {
		if err := p.store.verify(context.Background(), v); err != nil || len(v.Files) != 2 {
			t.Errorf("version %q has %d files, %v", v.Name, len(v.Files), err)
		}
	}
	text, err := os.ReadFile(filepath.Join(dir, "current", "model.onnx"))
	must(t, err)
	return string(text)
}
