//go:build cgo && linux

package main

import (
	"context"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestFullDiskOfLaterStages writes policy, report and completions to a disk without room: an
// error of the environment that leaves what was there. With room, the same command does it.
func TestFullDiskOfLaterStages(t *testing.T) {
	library(t)
	w := newWorld(t)
	if err := os.Mkdir("disk", 0o777); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", "disk", "tmpfs", 0, "size=64m"); err != nil {
		t.Skipf("may not mount a small disk: %v", err)
	}
	defer syscall.Unmount("disk", 0)
	for name, args := range map[string]string{
		"export":  "export --checkpoint run/last --model model --out disk/policy",
		"report":  "report disk/run",
		"compare": "compare --model model --policy policy --prompt Customer: --max-tokens 6 --report disk/run",
	} {
		w.must(os.RemoveAll("disk/run"))
		w.must(os.CopyFS("disk/run", os.DirFS("run")))
		before := w.snapshot("disk")
		filler, err := os.Create("disk/filler")
		w.must(err)
		for chunk := make([]byte, 1<<12); err == nil; {
			_, err = filler.Write(chunk)
		}
		w.must(filler.Close())
		if code, _, stderr := w.run(args); code != exitEnvironment || !strings.Contains(stderr, "the disk is full") {
			t.Errorf("%s: exit code %d, want %d: %s", name, code, exitEnvironment, stderr)
		}
		w.must(os.Remove("disk/filler"))
		if !maps.Equal(w.snapshot("disk"), before) {
			t.Errorf("%s: on a full disk it left %v", name, differing(w.snapshot("disk"), before))
		}
		if code, _, stderr := w.run(args); code != exitDone {
			t.Errorf("%s, with room again: %s", name, stderr)
		}
	}
}

// TestKilledExport kills exports at random moments: there is no policy, or a whole one.
func TestKilledExport(t *testing.T) {
	if testing.Short() {
		t.Skip("takes many runs of the command")
	}
	library(t)
	w := newWorld(t)
	w.reset()
	rng := rand.New(rand.NewPCG(5, 6))
	want := w.snapshot("policy")
	var took time.Duration
	for killed := 0; killed < slowKills; {
		w.must(os.RemoveAll("again"))
		cmd := command(context.Background(), t, w.dir, "export", "--checkpoint", "run/last", "--model", "model", "--out", "again")
		start := time.Now()
		w.must(cmd.Start())
		if took > 0 {
			timer := time.AfterFunc(time.Duration(rng.Float64()*float64(took)), func() { cmd.Process.Kill() })
			defer timer.Stop()
		}
		err := cmd.Wait()
		if took == 0 {
			took = time.Since(start)
		}
		if err != nil {
			killed++
		}
		got := map[string]string{}
		for name, content := range w.snapshot("again") {
			got[filepath.Join("policy", strings.TrimPrefix(name, "again"))] = content
		}
		if len(got) > 0 && !maps.Equal(got, want) || err == nil && len(got) == 0 {
			t.Fatalf("killed (%v), the policy differs: %v", err, differing(got, want))
		}
	}
}
