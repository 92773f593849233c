package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// The test binary is a process that can be killed: with childPush or childFetch set
// it does that and nothing else.
const (
	childPush  = "DPO_PIPE_TEST_PUSH"
	childFetch = "DPO_PIPE_TEST_FETCH"
)

func TestMain(m *testing.M) {
	ctx := context.Background()
	var err error
	switch {
	case os.Getenv(childPush) != "":
		err = Push(ctx, os.Getenv(childPush), at("cache"), PushOptions{Last: []string{"manifest.json"}})
	case os.Getenv(childFetch) != "":
		_, err = Fetch(ctx, at("model"), FetchOptions{Cache: os.Getenv(childFetch)})
	default:
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// answer is what S3 says when it refuses.
func answer(w http.ResponseWriter, status int, code string) bool {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, "<Error><Code>%s</Code><Message>for a test</Message></Error>", code)
	return true
}

// cut ends a connection without an answer.
func cut(w http.ResponseWriter) bool {
	if conn, _, err := w.(http.Hijacker).Hijack(); err == nil {
		conn.Close()
	}
	return true
}

// isPart reports a request that writes a part of an object.
func isPart(r *http.Request) bool {
	return r.Method == http.MethodPut && r.URL.Query().Has("partNumber")
}

// atFirst has every request of a kind fail once more than a driver tries.
func atFirst(fault func(http.ResponseWriter, *http.Request) bool, kind func(*http.Request) string) func(http.ResponseWriter, *http.Request) bool {
	var mu sync.Mutex
	failed := map[string]int{}
	return func(w http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		failed[kind(r)]++
		n := failed[kind(r)]
		mu.Unlock()
		return n <= driverAttempts+1 && fault(w, r)
	}
}

func TestFaultsThatPass(t *testing.T) {
	content := map[string]string{"manifest.json": "m", "part-0": large(20 << 20), "part-1": "b"}
	for _, tc := range []struct {
		name  string
		fault func(w http.ResponseWriter, r *http.Request) bool
	}{
		{"500", func(w http.ResponseWriter, _ *http.Request) bool { return answer(w, 500, "InternalError") }},
		{"503", func(w http.ResponseWriter, _ *http.Request) bool { return answer(w, 503, "SlowDown") }},
		{"no answer", func(w http.ResponseWriter, _ *http.Request) bool { return cut(w) }},
		{"a proxy's page", func(w http.ResponseWriter, _ *http.Request) bool {
			http.Error(w, "<html>Bad Gateway</html>", http.StatusBadGateway)
			return true
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newServer(t)
			s.failing(atFirst(tc.fault, func(r *http.Request) string { return r.Method + r.URL.Path + r.URL.Query().Get("partNumber") }))
			if err := Push(context.Background(), tree(t, content), at("cache"), PushOptions{Last: []string{"manifest.json"}}); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(content, files(t, fetch(t, at("cache"), t.TempDir()))); diff != "" {
				t.Errorf("fetched (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAServerThatHangs(t *testing.T) {
	s := newServer(t)
	before := stallAfter
	stallAfter = 100 * time.Millisecond
	t.Cleanup(func() { stallAfter = before })
	s.put("a", "text")
	var hung atomic.Int64
	s.failing(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || hung.Add(1) > 2 {
			return false
		}
		w.Header().Set("Content-Length", "4")
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		return true
	})
	if data, err := os.ReadFile(fetch(t, at("a"), t.TempDir())); err != nil || string(data) != "text" {
		t.Errorf("fetched %q, %v", data, err)
	}
	if n := hung.Load(); n != 3 {
		t.Errorf("%d reads, want two that hung and one", n)
	}
}

// TestADownloadThatIsCut gives a megabyte a connection. Far more connections are needed
// than attempts are allowed: each brings the object further.
func TestADownloadThatIsCut(t *testing.T) {
	s := newServer(t)
	text := large(9<<20 + 5)
	s.put("model/model.onnx", text)
	var ranges atomic.Int64
	s.failing(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, "model.onnx") {
			return false
		}
		from := 0
		if text := r.Header.Get("Range"); text != "" {
			ranges.Add(1)
			fmt.Sscanf(text, "bytes=%d-", &from)
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(text)-1, len(text)))
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(text)-from))
		if from > 0 {
			w.WriteHeader(http.StatusPartialContent)
		}
		fmt.Fprint(w, text[from:min(len(text), from+1<<20)])
		return len(text)-from <= 1<<20 || cut(w)
	})
	if data, err := os.ReadFile(filepath.Join(fetch(t, at("model"), t.TempDir()), "model.onnx")); err != nil || string(data) != text {
		t.Errorf("fetched %d bytes, %v, want %d", len(data), err, len(text))
	}
	if n := ranges.Load(); n != 9 {
		t.Errorf("%d reads went on in the middle, want 9", n)
	}
}

// visible lists what a cache shows: whole objects and folders.
func visible(t *testing.T, cache string) (names []string) {
	t.Helper()
	for _, pattern := range []string{"objects/*/*/" + dataName, "trees/*/*/*"} {
		found, err := filepath.Glob(filepath.Join(cache, pattern))
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, found...)
	}
	return names
}

func TestADownloadThatNeverEnds(t *testing.T) {
	s := newServer(t)
	s.put("model/model.onnx", "weights")
	s.failing(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, "model.onnx") {
			return false
		}
		w.Header().Set("Content-Length", "7")
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		return cut(w)
	})
	cache := t.TempDir()
	_, err := Fetch(context.Background(), at("model"), FetchOptions{Cache: cache})
	if KindOf(err) != Unreachable || !strings.Contains(err.Error(), at("model/model.onnx")) {
		t.Errorf("error is %v, want one of kind Unreachable that names the object", err)
	}
	if got := visible(t, cache); len(got) > 0 {
		t.Errorf("the cache shows %q", got)
	}
}

func TestBytesThatAreNotTheObjects(t *testing.T) {
	s := newServer(t)
	s.put("model/model.onnx", "weights")
	damaged := true
	s.failing(func(w http.ResponseWriter, r *http.Request) bool {
		if !damaged || r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, "model.onnx") {
			return false
		}
		fmt.Fprint(w, "weighty")
		return true
	})
	cache := t.TempDir()
	if _, err := Fetch(context.Background(), at("model"), FetchOptions{Cache: cache}); KindOf(err) != Corrupt {
		t.Errorf("error is %v, want one of kind Corrupt", err)
	}
	if got := visible(t, cache); len(got) > 0 {
		t.Errorf("the cache shows %q", got)
	}
	damaged = false
	if data, err := os.ReadFile(filepath.Join(fetch(t, at("model"), cache), "model.onnx")); string(data) != "weights" {
		t.Errorf("behind the damage: %q, %v", data, err)
	}
}

func TestAFolderThatChangesWhileItIsFetched(t *testing.T) {
	s := newServer(t)
	s.put("model/a", "old a")
	s.put("model/b", "old b")
	var once sync.Once
	s.failing(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/b") {
			once.Do(func() {
				s.put("model/a", "new a")
				s.put("model/b", "new, longer b")
			})
		}
		return false
	})
	want := map[string]string{"a": "new a", "b": "new, longer b"}
	// A server that knows no If-Match sends the new bytes, whose checksum is wrong.
	paths, err := Fetch(context.Background(), at("model"), FetchOptions{Cache: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, files(t, paths[0])); diff != "" {
		t.Errorf("fetched (-want +got):\n%s", diff)
	}
}

func TestManyFetchTheSame(t *testing.T) {
	s := newServer(t)
	s.put("model/model.onnx", large(3<<20))
	cache := t.TempDir()
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			if _, err := Fetch(context.Background(), at("model"), FetchOptions{Cache: cache}); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if n := s.gets(); n != 1 {
		t.Errorf("the object was read %d times, want once", n)
	}
}

// TestAnUploadThatIsCut cuts every connection that sends the second part of an object.
func TestAnUploadThatIsCut(t *testing.T) {
	s := newServer(t)
	dir := tree(t, map[string]string{"manifest.json": "m", "part-0": large(30 << 20)})
	s.failing(func(w http.ResponseWriter, r *http.Request) bool {
		return isPart(r) && r.URL.Query().Get("partNumber") == "2" && cut(w)
	})
	opt := PushOptions{Last: []string{"manifest.json"}}
	err := Push(context.Background(), dir, at("cache"), opt)
	if KindOf(err) != Unreachable || !strings.Contains(err.Error(), at("cache/part-0")) {
		t.Errorf("error is %v, want one of kind Unreachable that names the object", err)
	}
	if got := s.keys(); !slices.Equal(got, []string{"cache/" + signName}) {
		t.Errorf("the bucket shows %q, want the sign of a push alone", got)
	}
	if state, err := Look(context.Background(), at("cache"), "manifest.json"); err != nil || state != (State{Unfinished: true}) {
		t.Errorf("the place holds %+v, %v", state, err)
	}
	s.failing(nil)
	if err := Push(context.Background(), dir, at("cache"), opt); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(files(t, dir), files(t, fetch(t, at("cache"), t.TempDir()))); diff != "" {
		t.Errorf("fetched (-want +got):\n%s", diff)
	}
}

// TestAnUpdateThatIsCut fails while changed objects are sent: the old folder stays whole.
func TestAnUpdateThatIsCut(t *testing.T) {
	s := newServer(t)
	one := map[string]string{"manifest.json": "m1", "part-0": "a", "part-1": "b"}
	opt := PushOptions{Last: []string{"manifest.json"}}
	if err := Push(context.Background(), tree(t, one), at("cache"), opt); err != nil {
		t.Fatal(err)
	}
	s.failing(func(w http.ResponseWriter, r *http.Request) bool {
		return r.Method == http.MethodPut && strings.HasSuffix(r.URL.Path, "part-1") && answer(w, 503, "SlowDown")
	})
	two := tree(t, map[string]string{"manifest.json": "m2", "part-0": "A", "part-1": "B"})
	if err := Push(context.Background(), two, at("cache"), opt); KindOf(err) != Unreachable {
		t.Errorf("error is %v", err)
	}
	s.failing(nil)
	if diff := cmp.Diff(one, files(t, fetch(t, at("cache"), t.TempDir()))); diff != "" {
		t.Errorf("behind the failure (-want +got):\n%s", diff)
	}
	if err := Push(context.Background(), two, at("cache"), opt); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(files(t, two), files(t, fetch(t, at("cache"), t.TempDir()))); diff != "" {
		t.Errorf("pushed again (-want +got):\n%s", diff)
	}
}

func TestRefusals(t *testing.T) {
	for _, tc := range []struct {
		name   string
		status int
		code   string
		want   Kind
		is     error
	}{
		{"read-only credentials", 403, "AccessDenied", Denied, fs.ErrPermission},
		{"unknown key", 403, "InvalidAccessKeyId", Denied, fs.ErrPermission},
		{"wrong secret", 403, "SignatureDoesNotMatch", Denied, fs.ErrPermission},
		{"expired", 400, "ExpiredToken", Denied, fs.ErrPermission},
		{"no bucket", 404, "NoSuchBucket", NotFound, fs.ErrNotExist},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newServer(t)
			useCredentials(t, "AKIATESTTESTTEST", "do-not-print-me")
			s.failing(func(w http.ResponseWriter, r *http.Request) bool {
				return r.Method == http.MethodPut && answer(w, tc.status, tc.code)
			})
			err := Push(context.Background(), tree(t, map[string]string{"manifest.json": "m"}), at("cache"), PushOptions{Last: []string{"manifest.json"}})
			if KindOf(err) != tc.want || !errors.Is(err, tc.is) || !strings.Contains(err.Error(), at("cache/")) {
				t.Errorf("error is %v, want one of kind %d that names the object", err, tc.want)
			}
			if strings.Contains(err.Error(), "do-not-print-me") {
				t.Errorf("the secret is in %v", err)
			}
			if n := len(s.requests("PUT ")); n != 1 {
				t.Errorf("%d requests, want 1: it would not pass", n)
			}
			if got := s.keys(); len(got) > 0 {
				t.Errorf("the bucket holds %q", got)
			}
		})
	}
}

func TestPlacesThatAreNot(t *testing.T) {
	s := newServer(t)
	for _, url := range []string{at("none"), at("none/"), at("none/*.jsonl"), "s3://nobody/x", "s3://nobody/"} {
		if _, err := Fetch(context.Background(), url, FetchOptions{Cache: t.TempDir()}); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: error is %v", url, err)
		}
	}
	s.requests("")
	if _, err := Fetch(context.Background(), at("none"), FetchOptions{Cache: t.TempDir()}); len(s.requests("")) != 2 {
		t.Errorf("what is not there was asked for again: %v", err)
	}
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	t.Setenv("AWS_ENDPOINT_URL", gone.URL)
	if _, err := Fetch(context.Background(), at("a"), FetchOptions{Cache: t.TempDir()}); KindOf(err) != Unreachable {
		t.Errorf("no server: error is %v", err)
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	if _, err := Fetch(context.Background(), at("a"), FetchOptions{Cache: t.TempDir()}); KindOf(err) != Denied {
		t.Errorf("no credentials: error is %v", err)
	}
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", filepath.Join(t.TempDir(), "none"))
	if _, err := Fetch(context.Background(), "gs://b/a", FetchOptions{Cache: t.TempDir()}); KindOf(err) != Denied {
		t.Errorf("no Google credentials: error is %v", err)
	}
}

func TestCancelled(t *testing.T) {
	s := newServer(t)
	s.put("a", "text")
	ctx, cancel := context.WithCancel(context.Background())
	s.failing(func(w http.ResponseWriter, r *http.Request) bool {
		cancel()
		return answer(w, 503, "SlowDown")
	})
	if _, err := Fetch(ctx, at("a"), FetchOptions{Cache: t.TempDir()}); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
}

// child starts the test binary with one more variable.
func child(t *testing.T, variable, value string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), variable+"="+value)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

// kill ends a child at once, as a power cut would.
func kill(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Fatal("it had ended before it was killed")
	}
}

func TestAKilledPush(t *testing.T) {
	s := newServer(t)
	dir := tree(t, map[string]string{"manifest.json": "m", "part-0": large(30 << 20), "part-1": "b"})
	reached, killed := make(chan bool, 100), make(chan bool)
	s.failing(func(w http.ResponseWriter, r *http.Request) bool {
		if !isPart(r) || r.URL.Query().Get("partNumber") != "3" {
			return false
		}
		reached <- true
		<-killed
		return cut(w)
	})
	cmd := child(t, childPush, dir)
	<-reached
	kill(t, cmd)
	close(killed)
	for _, key := range s.keys() {
		if strings.HasSuffix(key, "manifest.json") || strings.HasSuffix(key, "part-0") {
			t.Errorf("the bucket shows %s", key)
		}
	}
	s.failing(nil)
	if err := Push(context.Background(), dir, at("cache"), PushOptions{Last: []string{"manifest.json"}}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(files(t, dir), files(t, fetch(t, at("cache"), t.TempDir()))); diff != "" {
		t.Errorf("pushed again (-want +got):\n%s", diff)
	}
	if got := s.keys(); len(got) != 3 {
		t.Errorf("the bucket holds %q, want what was pushed", got)
	}
}

func TestAKilledFetch(t *testing.T) {
	s := newServer(t)
	text := large(4 << 20)
	s.put("model/model.onnx", text)
	cache := t.TempDir()
	s.failing(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, "model.onnx") {
			return false
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(text)))
		fmt.Fprint(w, text[:len(text)/2])
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		return true
	})
	cmd := child(t, childFetch, cache)
	partial := filepath.Join(cache, "objects", "*", "*", partialName)
	for {
		if found, err := filepath.Glob(partial); err == nil && len(found) == 1 {
			if info, err := os.Stat(found[0]); err == nil && info.Size() > 0 {
				break
			}
		}
		time.Sleep(5 * time.Millisecond)
	}
	kill(t, cmd)
	if got := visible(t, cache); len(got) > 0 {
		t.Errorf("the cache shows %q", got)
	}
	var from string
	s.failing(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "model.onnx") {
			from = r.Header.Get("Range")
		}
		return false
	})
	if data, err := os.ReadFile(filepath.Join(fetch(t, at("model"), cache), "model.onnx")); err != nil || string(data) != text {
		t.Errorf("fetched %d bytes, %v, want %d", len(data), err, len(text))
	}
	if from == "" {
		t.Error("the object was read from its beginning, want from where the killed process was")
	}
}

func TestPrune(t *testing.T) {
	s := newServer(t)
	cache := t.TempDir()
	s.put("old", "old")
	s.put("new", "new")
	old := fetch(t, at("old"), cache)
	long := time.Now().Add(-keepFor - time.Hour)
	for _, pattern := range []string{"objects/*/*", "trees/*/*"} {
		dirs, err := filepath.Glob(filepath.Join(cache, pattern))
		if err != nil || len(dirs) != 1 {
			t.Fatal(dirs, err)
		}
		if err := os.Chtimes(dirs[0], long, long); err != nil {
			t.Fatal(err)
		}
	}
	kept := fetch(t, at("new"), cache)
	if err := Prune(cache); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(old); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what was of no use is there: %v", err)
	}
	if data, err := os.ReadFile(kept); string(data) != "new" {
		t.Errorf("what is in use: %q, %v", data, err)
	}
}
