package store

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
)

// server is an S3 server in this process, which can be made to fail.
type server struct {
	t       *testing.T
	backend gofakes3.Backend
	url     string

	mu sync.Mutex
	// fault answers a request instead of the server where it returns true.
	fault func(w http.ResponseWriter, r *http.Request) bool
	// log holds method and path of every request.
	log []string
}

const bucket = "prefs"

// newServer starts a server with one empty bucket, and names it and its credentials in
// the environment. Waits between attempts are short.
func newServer(t *testing.T) *server {
	t.Helper()
	s := &server{t: t, backend: s3mem.New()}
	if err := s.backend.CreateBucket(bucket); err != nil {
		t.Fatal(err)
	}
	fake := gofakes3.New(s.backend).Server()
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.log = append(s.log, r.Method+" "+r.URL.Path)
		fault := s.fault
		s.mu.Unlock()
		if fault == nil || !fault(w, r) {
			fake.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(web.Close)
	s.url = web.URL
	useCredentials(t, "key", "secret")
	t.Setenv("AWS_ENDPOINT_URL", web.URL)
	shortWaits(t)
	return s
}

// useCredentials makes the environment name these and nothing else.
func useCredentials(t *testing.T, key, secret string) {
	t.Helper()
	t.Setenv("AWS_ACCESS_KEY_ID", key)
	t.Setenv("AWS_SECRET_ACCESS_KEY", secret)
	t.Setenv("AWS_SESSION_TOKEN", "")
	t.Setenv("AWS_REGION", "us-east-1")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	t.Setenv("AWS_CONFIG_FILE", filepath.Join(t.TempDir(), "none"))
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", filepath.Join(t.TempDir(), "none"))
}

func shortWaits(t *testing.T) {
	t.Helper()
	first, longest := firstWait, longestWait
	firstWait, longestWait = 2*time.Millisecond, 10*time.Millisecond
	t.Cleanup(func() { firstWait, longestWait = first, longest })
}

// failing makes the server answer by fault from now on.
func (s *server) failing(fault func(w http.ResponseWriter, r *http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = fault
}

// requests returns those since the last call that begin with prefix.
func (s *server) requests(prefix string) (some []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, line := range s.log {
		if strings.HasPrefix(line, prefix) {
			some = append(some, line)
		}
	}
	s.log = nil
	return some
}

// put writes an object behind the back of the code under test.
func (s *server) put(key, text string) {
	s.t.Helper()
	if _, err := s.backend.PutObject(bucket, key, map[string]string{}, strings.NewReader(text), int64(len(text)), nil); err != nil {
		s.t.Fatal(err)
	}
}

// keys lists what the bucket holds.
func (s *server) keys() (keys []string) {
	s.t.Helper()
	list, err := s.backend.ListBucket(bucket, &gofakes3.Prefix{}, gofakes3.ListBucketPage{})
	if err != nil {
		s.t.Fatal(err)
	}
	for _, o := range list.Contents {
		keys = append(keys, o.Key)
	}
	slices.Sort(keys)
	return keys
}

func (s *server) get(key string) string {
	s.t.Helper()
	o, err := s.backend.GetObject(bucket, key, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	defer o.Contents.Close()
	data, err := io.ReadAll(o.Contents)
	if err != nil {
		s.t.Fatal(err)
	}
	return string(data)
}

// at is the URL of a key.
func at(key string) string { return "s3://" + bucket + "/" + key }

// tree writes files, by name, below a new folder.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	fill(t, dir, files)
	return dir
}

func fill(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
}

// files reads a folder, by name with slashes.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	found, err := localFiles(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		data, err := os.ReadFile(f.path)
		if err != nil {
			data = []byte(f.link)
		}
		all[f.name] = string(data)
	}
	return all
}

// fetch is Fetch of one path into the cache of this test.
func fetch(t *testing.T, url, cache string) string {
	t.Helper()
	paths, err := Fetch(context.Background(), url, FetchOptions{Cache: cache})
	if err != nil {
		t.Fatal(err)
	}
	if len(paths) != 1 {
		t.Fatalf("fetched to %q, want one path", paths)
	}
	return paths[0]
}

// large is a text of n bytes that repeats nowhere near a part's length.
func large(n int) string {
	var b bytes.Buffer
	for i := uint32(1); b.Len() < n; i++ {
		x := i * 2654435761
		b.Write([]byte{byte(x >> 24), byte(x >> 16), byte(x >> 8), byte(x)})
	}
	return b.String()[:n]
}
