package store

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dpo-pipe/dpo-pipe/store/storetest"
)

// newGS starts fake-gcs-server behind a proxy that answers a request itself where fault returns
// true.
func newGS(t *testing.T, fault func(w http.ResponseWriter, r *http.Request) bool) *storetest.Server {
	t.Helper()
	var server atomic.Pointer[httputil.ReverseProxy]
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !fault(w, r) {
			server.Load().ServeHTTP(w, r)
		}
	}))
	t.Cleanup(proxy.Close)
	host := strings.TrimPrefix(proxy.URL, "http://")
	s := storetest.StartGS(t, []string{bucket}, "-external-url", proxy.URL, "-public-host", host)
	to, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	server.Store(httputil.NewSingleHostReverseProxy(to))
	t.Setenv("STORAGE_EMULATOR_HOST", host)
	shortWaits(t)
	return s
}

// refuseGS is what Google Cloud Storage says when it refuses.
func refuseGS(w http.ResponseWriter, status int, reason string) bool {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"error": {"code": %d, "message": "for a test", "errors": [{"reason": %q}]}}`, status, reason)
	return true
}

func TestGSFaultsThatPass(t *testing.T) {
	content := map[string]string{"manifest.json": "m", "part-0": large(20 << 20), "part-1": "b"}
	for _, tc := range []struct {
		name  string
		fault func(w http.ResponseWriter, r *http.Request) bool
	}{
		{"503", func(w http.ResponseWriter, _ *http.Request) bool { return refuseGS(w, 503, "backendError") }},
		{"429", func(w http.ResponseWriter, _ *http.Request) bool { return refuseGS(w, 429, "rateLimitExceeded") }},
		{"no answer", func(w http.ResponseWriter, _ *http.Request) bool { return cut(w) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newGS(t, atFirst(tc.fault, func(r *http.Request) string {
				return r.Method + r.URL.Path + r.URL.Query().Get("name") + r.Header.Get("Content-Range")
			}))
			place := s.At(bucket + "/cache")
			if err := Push(context.Background(), tree(t, content), place, PushOptions{Last: []string{"manifest.json"}}); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(content, files(t, fetch(t, place, t.TempDir()))); diff != "" {
				t.Errorf("fetched (-want +got):\n%.2000s", diff)
			}
			if got, want := s.Objects(t, bucket), []string{"cache/manifest.json", "cache/part-0", "cache/part-1"}; !slices.Equal(got, want) {
				t.Errorf("the bucket holds %q, want %q", got, want)
			}
		})
	}
}

// TestGSFaultsThatStay wants errors of the right kind in bounded time, and nothing half visible.
func TestGSFaultsThatStay(t *testing.T) {
	for _, tc := range []struct {
		name  string
		fault func(w http.ResponseWriter) bool
		want  Kind
	}{
		{"503", func(w http.ResponseWriter) bool { return refuseGS(w, 503, "backendError") }, Unreachable},
		{"no answer", cut, Unreachable},
		{"forbidden", func(w http.ResponseWriter) bool { return refuseGS(w, 403, "forbidden") }, Denied},
		{"unauthorised", func(w http.ResponseWriter) bool { return refuseGS(w, 401, "required") }, Denied},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var on atomic.Bool
			s := newGS(t, func(w http.ResponseWriter, _ *http.Request) bool { return on.Load() && tc.fault(w) })
			dir := tree(t, map[string]string{"manifest.json": "m", "part": "p"})
			opt := PushOptions{Last: []string{"manifest.json"}}
			if err := Push(context.Background(), dir, s.At(bucket+"/cache"), opt); err != nil {
				t.Fatal(err)
			}
			on.Store(true)
			if err := Push(context.Background(), dir, s.At(bucket+"/other"), opt); KindOf(err) != tc.want {
				t.Errorf("push: %v, want kind %d", err, tc.want)
			}
			if _, err := Fetch(context.Background(), s.At(bucket+"/cache"), FetchOptions{Cache: t.TempDir()}); KindOf(err) != tc.want {
				t.Errorf("fetch: %v, want kind %d", err, tc.want)
			}
			if _, err := Look(context.Background(), s.At(bucket+"/cache"), "manifest.json"); KindOf(err) != tc.want {
				t.Errorf("look: %v, want kind %d", err, tc.want)
			}
			if got, want := s.Objects(t, bucket), []string{"cache/manifest.json", "cache/part"}; !slices.Equal(got, want) {
				t.Errorf("the bucket holds %q, want %q", got, want)
			}
		})
	}
}

// TestGSWithoutAServer wants an end: the driver alone would go on for ever.
func TestGSWithoutAServer(t *testing.T) {
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	t.Setenv("STORAGE_EMULATOR_HOST", strings.TrimPrefix(gone.URL, "http://"))
	shortWaits(t)
	if _, err := Fetch(context.Background(), "gs://"+bucket+"/a", FetchOptions{Cache: t.TempDir()}); KindOf(err) != Unreachable {
		t.Errorf("fetch: %v", err)
	}
	if err := Push(context.Background(), tree(t, map[string]string{"a": "a"}), "gs://"+bucket+"/b", PushOptions{}); KindOf(err) != Unreachable {
		t.Errorf("push: %v", err)
	}
}

// TestAGSDownloadThatIsCut gives a megabyte a connection, far more connections than attempts.
func TestAGSDownloadThatIsCut(t *testing.T) {
	text := large(9<<20 + 5)
	var on atomic.Bool
	s := newGS(t, func(w http.ResponseWriter, r *http.Request) bool {
		if !on.Load() || r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, "/cache/part-0") {
			return false
		}
		from := 0
		fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from)
		w.Header().Set("Content-Length", fmt.Sprint(len(text)-from))
		w.Header().Set("X-Goog-Generation", r.URL.Query().Get("generation"))
		if from > 0 {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(text)-1, len(text)))
			w.WriteHeader(http.StatusPartialContent)
		}
		fmt.Fprint(w, text[from:min(len(text), from+1<<20)])
		return len(text)-from <= 1<<20 || cut(w)
	})
	place := s.At(bucket + "/cache")
	if err := Push(context.Background(), tree(t, map[string]string{"part-0": text}), place, PushOptions{}); err != nil {
		t.Fatal(err)
	}
	on.Store(true)
	if data, err := os.ReadFile(filepath.Join(fetch(t, place+"/", t.TempDir()), "part-0")); err != nil || string(data) != text {
		t.Errorf("fetched %d bytes, %v, want %d", len(data), err, len(text))
	}
}
