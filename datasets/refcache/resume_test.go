package refcache

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dpo-pipe/dpo-pipe/datasets"
	"github.com/dpo-pipe/dpo-pipe/internal/atomicfile"
	"github.com/dpo-pipe/dpo-pipe/internal/lockfile"
)

// The pass of these tests: 20 source rows, of which every fifth is dropped, in parts of
// 3 kept rows.
const (
	passSource = 20
	passWidth  = 2
)

// runPass goes on with the cache in dir until it is finished or stop says so, and returns
// how many parts it wrote.
func runPass(dir string, stop func(parts int) bool) (parts int, err error) {
	m, h := testManifest(passWidth, F16)
	w, err := Create(dir, m, h)
	if err != nil {
		return 0, err
	}
	defer w.Close()
	pos := w.Position()
	var rows []Row
	for pos.Rows < passSource {
		i := int(pos.Rows)
		pos.Rows++
		if i%5 == 4 {
			pos.Dropped.Add(&datasets.RowError{File: "a.jsonl", Row: int64(i), Reason: datasets.EmptyCompletion, Detail: fmt.Sprint("row ", i)})
			continue
		}
		pos.Truncated += int64(i % 2)
		if rows = append(rows, testRow(i, passWidth, F16)); len(rows) < 3 {
			continue
		}
		if stop != nil && stop(w.Parts()) {
			return parts, nil
		}
		if err := w.WritePart(rows, pos); err != nil {
			return parts, err
		}
		parts++
		rows = rows[:0]
	}
	if len(rows) > 0 {
		if err := w.WritePart(rows, pos); err != nil {
			return parts, err
		}
		parts++
	}
	return parts, w.Finish(pos)
}

// files returns the content of every file in dir by name.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	names, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string]string)
	for _, name := range names {
		data, err := os.ReadFile(filepath.Join(dir, name.Name()))
		if err != nil {
			t.Fatal(err)
		}
		out[name.Name()] = string(data)
	}
	return out
}

func uninterrupted(t *testing.T) map[string]string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "cache")
	if _, err := runPass(dir, nil); err != nil {
		t.Fatal(err)
	}
	want := files(t, dir)
	names := slices.Sorted(maps.Keys(want))
	if diff := cmp.Diff([]string{headName, manifestName, partName(0), partName(1), partName(2), partName(3), partName(4), partName(5)}, names); diff != "" {
		t.Fatalf("files of a finished cache (-want +got):\n%s", diff)
	}
	return want
}

// write replaces a file, without the care that the package takes.
func write(t *testing.T, dir, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o666); err != nil {
		t.Fatal(err)
	}
}

// TestResumeEqualsUninterrupted puts a folder into each state that a kill or a power cut can leave,
// and finishes the pass.
func TestResumeEqualsUninterrupted(t *testing.T) {
	t.Parallel()
	want := uninterrupted(t)
	for _, c := range []struct {
		name   string
		after  int // parts written before the kill
		damage func(t *testing.T, dir string)
		redo   int // parts the resumed pass writes
	}{
		{"before the manifest", 0, func(t *testing.T, dir string) {
			os.Remove(filepath.Join(dir, manifestName))
			os.Remove(filepath.Join(dir, logName))
			write(t, dir, lockfile.Name, "")
		}, 6},
		{"before the log", 0, func(t *testing.T, dir string) { os.Remove(filepath.Join(dir, logName)) }, 6},
		{"before any part", 0, nil, 6},
		{"between parts", 2, nil, 4},
		{"with the lock", 2, func(t *testing.T, dir string) { write(t, dir, lockfile.Name, "") }, 4},
		{"inside a part", 2, func(t *testing.T, dir string) { write(t, dir, atomicfile.TempPrefix+"123", want[partName(2)][:50]) }, 4},
		{"before the log line", 2, func(t *testing.T, dir string) { write(t, dir, partName(2), want[partName(2)]) }, 4},
		{"inside the log line", 3, func(t *testing.T, dir string) {
			log := files(t, dir)[logName]
			write(t, dir, logName, log[:len(log)-20])
		}, 4},
		{"log line without its end", 3, func(t *testing.T, dir string) {
			log := files(t, dir)[logName]
			write(t, dir, logName, log[:len(log)-1])
		}, 4},
		{"zeros in the log", 3, func(t *testing.T, dir string) { write(t, dir, logName, files(t, dir)[logName]+"\x00\x00\x00\n") }, 3},
		{"part lost its end", 4, func(t *testing.T, dir string) { write(t, dir, partName(1), want[partName(1)][:100]) }, 5},
		{"part has other bytes", 4, func(t *testing.T, dir string) {
			write(t, dir, partName(2), want[partName(2)][:300]+"x"+want[partName(2)][301:])
		}, 4},
		{"part is gone", 4, func(t *testing.T, dir string) { os.Remove(filepath.Join(dir, partName(0))) }, 6},
		{"parts of an abandoned run", 1, func(t *testing.T, dir string) {
			write(t, dir, partName(7), "left over")
			write(t, dir, "part-100000.arrow", "x")
		}, 5},
		{"before the end", 4, nil, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "cache")
			if _, err := runPass(dir, func(parts int) bool { return parts == c.after }); err != nil {
				t.Fatal(err)
			}
			if c.damage != nil {
				c.damage(t, dir)
			}
			parts, err := runPass(dir, nil)
			if err != nil {
				t.Fatal(err)
			}
			if parts != c.redo {
				t.Errorf("resumed pass wrote %d parts, want %d", parts, c.redo)
			}
			if diff := cmp.Diff(want, files(t, dir)); diff != "" {
				t.Errorf("resumed cache differs (-want +got):\n%.2000s", diff)
			}
		})
	}
}

// TestKillInsideFinish leaves the log and the lock beside a finished manifest.
func TestKillInsideFinish(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "cache")
	if _, err := runPass(dir, nil); err != nil {
		t.Fatal(err)
	}
	want := files(t, dir)
	write(t, dir, logName, "left over\n")
	write(t, dir, lockfile.Name, "")
	if err := open(t, dir).Verify(t.Context(), nil); err != nil {
		t.Errorf("the cache is whole, yet: %v", err)
	}
	if _, err := runPass(dir, nil); !errors.Is(err, ErrComplete) {
		t.Errorf("got %v, want ErrComplete", err)
	}
	if diff := cmp.Diff(want, files(t, dir)); diff != "" {
		t.Errorf("finished cache changed (-want +got):\n%.500s", diff)
	}
}

// passDirVar makes the test binary run the pass in that folder, slowly, to be killed.
const passDirVar = "DPO_PIPE_TEST_PASS_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(passDirVar); dir != "" {
		_, err := runPass(dir, func(int) bool { time.Sleep(2 * time.Millisecond); return false })
		if err != nil && !errors.Is(err, ErrComplete) {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// TestSIGKILL kills the pass at random moments, at least 20 times in all, and compares every cache
// that comes of it.
func TestSIGKILL(t *testing.T) {
	t.Parallel()
	want := uninterrupted(t)
	rng := rand.New(rand.NewPCG(11, 12))
	kills, caches := 0, 0
	for start := time.Now(); kills < 20 && time.Since(start) < 30*time.Second; caches++ {
		dir := filepath.Join(t.TempDir(), "cache")
		// The longest delay grows, so that a slow machine or a slow build (-race) gets to the end.
		longest := 60
		for finished := false; !finished; longest += longest / 4 {
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), passDirVar+"="+dir)
			cmd.Stderr = os.Stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			timer := time.AfterFunc(time.Duration(5+rng.IntN(longest))*time.Millisecond, func() { cmd.Process.Kill() })
			err := cmd.Wait()
			timer.Stop()
			var exit *exec.ExitError
			if errors.As(err, &exit) && exit.ExitCode() == 1 {
				t.Fatal("the pass failed")
			}
			if finished = err == nil; !finished {
				kills++
			}
		}
		if diff := cmp.Diff(want, files(t, dir)); diff != "" {
			t.Fatalf("cache after kills differs (-want +got):\n%.2000s", diff)
		}
	}
	t.Logf("%d kills, %d caches", kills, caches)
}
