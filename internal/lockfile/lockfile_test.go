package lockfile

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// holderVar makes the test binary hold that folder's lock until it is killed.
const holderVar = "DPO_PIPE_TEST_LOCK_DIR"

func TestMain(m *testing.M) {
	dir := os.Getenv(holderVar)
	if dir == "" {
		os.Exit(m.Run())
	}
	if _, err := Acquire(dir); err != nil {
		panic(err)
	}
	os.Stdout.WriteString("held\n")
	time.Sleep(time.Hour)
}

func needsFlock(t *testing.T) {
	t.Helper()
	if runtime.GOOS == "windows" || runtime.GOOS == "aix" {
		t.Skipf("%s has no flock", runtime.GOOS)
	}
}

func wantHeld(t *testing.T, dir string) {
	t.Helper()
	l, err := Acquire(dir)
	held, ok := errors.AsType[*LockedError](err)
	if l != nil || !ok || held.Path != dir {
		t.Errorf("got %v, want a LockedError of %q", err, dir)
	}
}

func TestOneHolder(t *testing.T) {
	needsFlock(t)
	dir := t.TempDir()
	first, err := Acquire(dir)
	if err != nil {
		t.Fatal(err)
	}
	wantHeld(t, dir)
	if _, err := os.Stat(filepath.Join(dir, Name)); err != nil {
		t.Errorf("a refused Acquire took the file: %v", err)
	}
	for range 2 {
		if err := first.Release(); err != nil {
			t.Errorf("release: %v", err)
		}
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) != 0 {
		t.Errorf("a released folder holds %v, %v", names, err)
	}
	second, err := Acquire(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Release(); err != nil {
		t.Errorf("release: %v", err)
	}
	wantHeld(t, dir)
	if err := second.Release(); err != nil {
		t.Error(err)
	}
	var none *Lock
	if err := none.Release(); err != nil {
		t.Errorf("a nil lock gives %v", err)
	}
}

// TestHeldKeepsNobodyOut asks about a folder all the time while others lock it in turn.
func TestHeldKeepsNobodyOut(t *testing.T) {
	needsFlock(t)
	dir := t.TempDir()
	wantAnswer := func(want bool) {
		t.Helper()
		if got, err := Held(dir); got != want || err != nil {
			t.Fatalf("held is %v (%v), want %v", got, err, want)
		}
	}
	wantAnswer(false)
	if _, err := os.Stat(filepath.Join(dir, Name)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("asking made the file: %v", err)
	}
	var stop atomic.Bool
	var asked atomic.Int64
	var asking sync.WaitGroup
	asking.Go(func() {
		for !stop.Load() {
			if _, err := Held(dir); err != nil {
				t.Error(err)
			}
			asked.Add(1)
			time.Sleep(100 * time.Microsecond) // as often as no command asks, yet not always
		}
	})
	defer asking.Wait()
	defer stop.Store(true)
	for range 200 {
		var l *Lock
		for l == nil {
			before := asked.Load()
			var err error
			l, err = Acquire(dir)
			// One question that lasts as long as all attempts is a busy machine's doing.
			if _, ok := errors.AsType[*LockedError](err); ok && asked.Load() <= before+1 {
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		wantAnswer(true)
		if err := l.Release(); err != nil {
			t.Fatal(err)
		}
	}
	stop.Store(true)
	asking.Wait()
	wantAnswer(false)
	// A killed holder leaves the file alone.
	if err := os.WriteFile(filepath.Join(dir, Name), nil, 0o444); err != nil {
		t.Fatal(err)
	}
	wantAnswer(false)
}

func TestFoldersThatCannotBeLocked(t *testing.T) {
	needsFlock(t)
	dir := filepath.Join(t.TempDir(), "absent")
	if _, err := Acquire(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a folder that is not there gives %v", err)
	}
}

// TestReleaseOfARemovedFolder is what is left of a lock whose folder somebody took away, or
// replaced by one that another process holds.
func TestReleaseOfARemovedFolder(t *testing.T) {
	needsFlock(t)
	dir := filepath.Join(t.TempDir(), "run")
	var locks [2]*Lock
	for i := range locks {
		err := os.Mkdir(dir, 0o777)
		if err != nil {
			t.Fatal(err)
		}
		if locks[i], err = Acquire(dir); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := locks[0].Release(); err != nil {
		t.Error(err)
	}
	wantHeld(t, dir)
	if err := locks[1].Release(); err != nil {
		t.Error(err)
	}
}

// TestKilledHolder locks the file that a killed process leaves.
func TestKilledHolder(t *testing.T) {
	needsFlock(t)
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), holderVar+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "held\n" {
		t.Errorf("the holder says %q, %v", line, err)
	}
	wantHeld(t, dir)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait() // its error is the kill
	if _, err := os.Stat(filepath.Join(dir, Name)); err != nil {
		t.Errorf("a killed holder leaves its file, yet: %v", err)
	}
	l, err := Acquire(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Release(); err != nil {
		t.Error(err)
	}
}

// TestNeverTwoHolders takes and releases the lock from many sides at once: the file is removed
// under those who have it open already.
func TestNeverTwoHolders(t *testing.T) {
	needsFlock(t)
	dir := t.TempDir()
	var holders, taken atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 500 {
				l, err := Acquire(dir)
				if _, ok := errors.AsType[*LockedError](err); ok {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				if n := holders.Add(1); n != 1 {
					t.Errorf("%d hold one lock", n)
				}
				taken.Add(1)
				runtime.Gosched()
				holders.Add(-1)
				if err := l.Release(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if taken.Load() == 0 {
		t.Error("nobody ever had it")
	}
}

// TestTheHolderIsNamed reads who holds a lock: this process, whose number stands in it.
func TestTheHolderIsNamed(t *testing.T) {
	needsFlock(t)
	dir := t.TempDir()
	// A killed holder's name must not shine through.
	if err := os.WriteFile(filepath.Join(dir, Name), []byte(strings.Repeat("x", 200)), 0o666); err != nil {
		t.Fatal(err)
	}
	l, err := Acquire(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Release()
	_, err = Acquire(dir)
	host, hostErr := os.Hostname()
	if hostErr != nil {
		t.Fatal(hostErr)
	}
	want := fmt.Sprintf("(process %d on host %s since 20", os.Getpid(), host)
	if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "x\n") {
		t.Errorf("got %v, want %s…)", err, want)
	}
}
