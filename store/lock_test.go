package store

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dpo-pipe/dpo-pipe/internal/lockfile"
)

// lockURL is the place that the tests here hold.
var lockURL = at("runs")

// acquired holds the place until the test ends.
func acquired(t *testing.T) *Lock {
	t.Helper()
	l, err := Acquire(t.Context(), lockURL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Release() }) // which tests look at do it themselves
	return l
}

// TestOneHoldsAPlace keeps a second holder out until the first gives the place free.
func TestOneHoldsAPlace(t *testing.T) {
	s := newServer(t)
	if holder, err := Holder(t.Context(), lockURL); holder != "" || err != nil {
		t.Errorf("nobody was there yet: %q, %v", holder, err)
	}
	l := acquired(t)
	_, err := Acquire(t.Context(), lockURL)
	locked, ok := errors.AsType[*lockfile.LockedError](err)
	if !ok || locked.Path != lockURL || !strings.HasPrefix(locked.Holder, "process ") || strings.Contains(locked.Holder, "\n") {
		t.Errorf("the second holder: %v", err)
	}
	for range 3 {
		if err := l.Renew(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if holder, err := Holder(t.Context(), lockURL); holder != l.owner || err != nil {
		t.Errorf("holder is %q, %v, want %q", holder, err, l.owner)
	}
	if err := l.Release(); err != nil {
		t.Fatal(err)
	}
	if keys := s.keys(); len(keys) != 0 {
		t.Errorf("behind the release there is %q", keys)
	}
	if err := l.Renew(t.Context()); !errors.Is(err, context.Canceled) {
		t.Errorf("renewed behind its release: %v", err)
	}
	again := acquired(t)
	if err := again.Release(); err != nil {
		t.Fatal(err)
	}
}

// TestAKilledHoldersLock is taken over when its lease is over, and no sooner.
func TestAKilledHoldersLock(t *testing.T) {
	const owner = "process 7 on host other since 2026-01-02T03:04:05Z"
	for _, tc := range []struct {
		name, text string
		free       bool
	}{
		{"seen just now", owner + "\nseen " + time.Now().UTC().Format(time.RFC3339) + " x\n", false},
		{"seen long ago", owner + "\nseen " + time.Now().Add(-Lease-time.Minute).UTC().Format(time.RFC3339) + " x\n", true},
		{"a clock ahead", owner + "\nseen " + time.Now().Add(time.Hour).UTC().Format(time.RFC3339) + " x\n", false},
		{"no time", owner + "\nseen yesterday x\n", false},
		{"something else", "hello", false},
		{"nothing", "", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newServer(t)
			s.put("runs/"+LockName, tc.text)
			holder, err := Holder(t.Context(), lockURL)
			if first, _, _ := strings.Cut(tc.text, "\n"); err != nil || !tc.free && holder != first || tc.free && holder != "" {
				t.Errorf("holder is %q, %v", holder, err)
			}
			l, err := Acquire(t.Context(), lockURL)
			if _, locked := errors.AsType[*lockfile.LockedError](err); locked == tc.free || err != nil && !locked {
				t.Fatalf("got %v, want it free: %v", err, tc.free)
			}
			if err == nil {
				if err := errors.Join(l.Renew(t.Context()), l.Release()); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// TestALostLock ends the work under it, and stays its new holder's.
func TestALostLock(t *testing.T) {
	for _, tc := range []struct {
		name string
		lose func(t *testing.T, s *server)
		want string
	}{
		{"taken", func(_ *testing.T, s *server) {
			s.put("runs/"+LockName, "process 7 on host other since then\nseen now x\n")
		}, "process 7 on host other since then has it now"},
		{"removed", func(t *testing.T, s *server) {
			if _, err := s.backend.DeleteObject(bucket, "runs/"+LockName); err != nil {
				t.Fatal(err)
			}
		}, "it was removed"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newServer(t)
			l := acquired(t)
			ctx, cancel := l.Guard(t.Context())
			defer cancel()
			if ctx.Err() != nil {
				t.Fatal(ctx.Err())
			}
			tc.lose(t, s)
			left := len(s.keys())
			for range 2 {
				if err := l.Renew(t.Context()); KindOf(err) != Changed || !strings.Contains(err.Error(), tc.want) {
					t.Errorf("renewed: %v", err)
				}
			}
			<-ctx.Done()
			if err := context.Cause(ctx); KindOf(err) != Changed {
				t.Errorf("what was under way ended with %v", err)
			}
			if err := l.Release(); err != nil || len(s.keys()) != left {
				t.Errorf("released: %v; there is %q", err, s.keys())
			}
		})
	}
}

// TestALockWhoseAnswerIsLost is written, though the server says that it failed: the next attempt
// finds it there, and it is this holder's.
func TestALockWhoseAnswerIsLost(t *testing.T) {
	s := newServer(t)
	t.Setenv("AWS_MAX_ATTEMPTS", "1")
	var lost atomic.Int32
	s.failing(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPut || lost.Add(1)%2 == 0 {
			return false
		}
		body, err := io.ReadAll(r.Body)
		if err == nil {
			_, err = s.backend.PutObject(bucket, "runs/"+LockName, map[string]string{}, strings.NewReader(string(body)), int64(len(body)), nil)
		}
		if err != nil {
			t.Error(err)
		}
		w.WriteHeader(http.StatusInternalServerError)
		return true
	})
	l := acquired(t)
	if err := l.Renew(t.Context()); err != nil {
		t.Error(err)
	}
	if lost.Load() != 4 {
		t.Errorf("%d writes, want two of each", lost.Load())
	}
}

// TestPushesLeaveALock wants neither a push nor a clearing to remove the lock of its place; work
// put aside there is unseen, and goes.
func TestPushesLeaveALock(t *testing.T) {
	s := newServer(t)
	ctx := t.Context()
	l := acquired(t)
	work := tree(t, map[string]string{"manifest.json": "half"})
	push := func(folder, url string) {
		t.Helper()
		if err := Push(ctx, folder, url, PushOptions{Last: []string{"manifest.json"}}); err != nil {
			t.Fatal(err)
		}
	}
	push(work, Aside(lockURL, "next"))
	if state, err := Look(ctx, lockURL, "manifest.json"); err != nil || state != (State{}) {
		t.Errorf("with work put aside the place is %+v, %v", state, err)
	}
	if _, err := Fetch(ctx, lockURL, FetchOptions{Cache: t.TempDir()}); KindOf(err) != NotFound {
		t.Errorf("a reader finds %v", err)
	}
	if got := files(t, fetch(t, Aside(lockURL, "next"), t.TempDir())); got["manifest.json"] != "half" {
		t.Errorf("the work is %q", got)
	}
	push(work, lockURL)
	lockKey := "runs/" + LockName
	if keys := strings.Join(s.keys(), " "); keys != lockKey+" runs/manifest.json" {
		t.Errorf("behind the push there is %q", keys)
	}
	if err := l.bucket.Clear(ctx, "manifest.json"); err != nil {
		t.Fatal(err)
	}
	if keys := strings.Join(s.keys(), " "); keys != lockKey {
		t.Errorf("behind the clearing there is %q", keys)
	}
	if err := l.Renew(ctx); err != nil {
		t.Error(err)
	}
}

func TestBeside(t *testing.T) {
	for _, tc := range []struct{ url, want string }{
		{"s3://b/cache", "s3://b/cache-x"},
		{"s3://b/a/cache/", "s3://b/a/cache-x"},
		{"s3://b/a/cache?region=r&endpoint=http://h/", "s3://b/a/cache-x?region=r&endpoint=http://h/"},
		{"file:///a/cache", "file:///a/cache-x"},
	} {
		if got, err := Beside(tc.url, "-x"); got != tc.want || err != nil {
			t.Errorf("%s: got %s, %v, want %s", tc.url, got, err, tc.want)
		}
	}
	for _, url := range []string{"s3://b", "s3://b/", "s3://b?region=r", "cache"} {
		if got, err := Beside(url, "-x"); err == nil {
			t.Errorf("%s: got %s, want an error", url, got)
		}
	}
}
