package store

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFetch(t *testing.T) {
	s := newServer(t)
	for key, text := range map[string]string{
		"model/model.onnx": "graph", "model/tokenizer.json": "{}", "model/onnx/model.onnx_data": "weights",
		"model-2/model.onnx": "another", "data/b.jsonl": "b", "data/a.jsonl": "a", "data/a.txt": "text", "data/.a.jsonl": "hidden",
		"data/below/c.jsonl": "c", "data/below/": "", "data/a/z.jsonl": "z", "data/a-b/y.jsonl": "y",
	} {
		s.put(key, text)
	}
	for _, tc := range []struct {
		name, url string
		want      map[string]string // by path below the fetched folder
		order     []string          // of a pattern's files
	}{
		{name: "folder", url: at("model"), want: map[string]string{"model.onnx": "graph", "tokenizer.json": "{}", "onnx/model.onnx_data": "weights"}},
		{name: "folder by slash", url: at("model/"), want: map[string]string{"model.onnx": "graph", "tokenizer.json": "{}", "onnx/model.onnx_data": "weights"}},
		{name: "pattern", url: at("data/*.jsonl"), want: map[string]string{"a.jsonl": "a", "b.jsonl": "b"}, order: []string{"a.jsonl", "b.jsonl"}},
		// filepath.Glob has the files of folder a before those of a-b, as - is behind / nowhere.
		{
			name: "folders of a pattern", url: at("data/*/*.jsonl"), want: map[string]string{"a/z.jsonl": "z", "a-b/y.jsonl": "y", "below/c.jsonl": "c"},
			order: []string{"a/z.jsonl", "a-b/y.jsonl", "below/c.jsonl"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			paths, err := Fetch(context.Background(), tc.url, FetchOptions{Cache: t.TempDir()})
			if err != nil {
				t.Fatal(err)
			}
			folder := paths[0]
			if tc.order != nil {
				folder = strings.TrimSuffix(folder, filepath.FromSlash(tc.order[0]))
				var names []string
				for _, path := range paths {
					names = append(names, filepath.ToSlash(strings.TrimPrefix(path, folder)))
				}
				if !slices.Equal(names, tc.order) {
					t.Errorf("files are %q, want %q", names, tc.order)
				}
			}
			if diff := cmp.Diff(tc.want, files(t, folder)); diff != "" {
				t.Errorf("folder (-want +got):\n%s", diff)
			}
		})
	}
	t.Run("file", func(t *testing.T) {
		path := fetch(t, at("data/a.jsonl"), t.TempDir())
		if data, err := os.ReadFile(path); string(data) != "a" || filepath.Base(path) != "a.jsonl" {
			t.Errorf("%s holds %q, %v", path, data, err)
		}
	})
	t.Run("picked", func(t *testing.T) {
		paths, err := Fetch(context.Background(), at("model"), FetchOptions{Cache: t.TempDir(), Keep: func(names []string) []string { return names[1:2] }})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(map[string]string{"onnx/model.onnx_data": "weights"}, files(t, paths[0])); diff != "" {
			t.Errorf("folder (-want +got):\n%s", diff)
		}
	})
}

// gets counts the objects that were read.
func (s *server) gets() (n int) {
	for _, line := range s.requests("GET /" + bucket + "/") {
		if !strings.HasSuffix(line, bucket+"/") {
			n++
		}
	}
	return n
}

func TestAnObjectIsTransferredOnce(t *testing.T) {
	s := newServer(t)
	cache := t.TempDir()
	s.put("model/model.onnx", "graph")
	s.put("model/tokenizer.json", "{}")
	first := fetch(t, at("model"), cache)
	if n := s.gets(); n != 2 {
		t.Errorf("%d objects were read at first, want 2", n)
	}
	if again := fetch(t, at("model"), cache); again != first || s.gets() != 0 {
		t.Errorf("the second time it is %s, want %s without reading an object", again, first)
	}
	s.put("model/tokenizer.json", "{1}")
	third := fetch(t, at("model"), cache)
	if n := s.gets(); n != 1 || third == first {
		t.Errorf("after a change %d objects were read into %s, want 1 into another folder than %s", n, third, first)
	}
	want := map[string]string{"model.onnx": "graph", "tokenizer.json": "{1}"}
	if diff := cmp.Diff(want, files(t, third)); diff != "" {
		t.Errorf("changed folder (-want +got):\n%s", diff)
	}
	want["tokenizer.json"] = "{}"
	if diff := cmp.Diff(want, files(t, first)); diff != "" {
		t.Errorf("the folder that was there (-want +got):\n%s", diff)
	}
}

func TestPushAndFetch(t *testing.T) {
	s := newServer(t)
	ctx := context.Background()
	content := map[string]string{
		"manifest.json": "m1", "part-0.arrow": large(40 << 20), "part-1.arrow": "p1", "head": "h", "below/x": "x", ".lock": "",
	}
	dir := tree(t, content)
	delete(content, ".lock")
	opt := PushOptions{Last: []string{"manifest.json"}}
	if err := Push(ctx, dir, at("caches/one"), opt); err != nil {
		t.Fatal(err)
	}
	writes := s.requests("PUT /" + bucket + "/caches/one")
	if last := writes[len(writes)-1]; !strings.HasSuffix(last, "/manifest.json") {
		t.Errorf("the last write is %s, want the marker's; all: %q", last, writes)
	}
	if diff := cmp.Diff(content, files(t, fetch(t, at("caches/one"), t.TempDir()))); diff != "" {
		t.Errorf("fetched (-want +got):\n%s", diff)
	}
	want := []string{"caches/one/below/x", "caches/one/head", "caches/one/manifest.json", "caches/one/part-0.arrow", "caches/one/part-1.arrow"}
	if got := s.keys(); !slices.Equal(got, want) {
		t.Errorf("the bucket holds %q, want %q", got, want)
	}
	if err := Push(ctx, dir, at("caches/one"), opt); err != nil {
		t.Fatal(err)
	}
	if writes := slices.Concat(s.requests("PUT "), s.requests("POST ")); len(writes) > 0 {
		t.Errorf("pushed again, nothing changed: %q", writes)
	}
}

// watchMarker keeps note of what is wrong with a folder that is whole by its marker: a
// reader must see the content of one push or none.
func (s *server) watchMarker(t *testing.T, key string, whole ...map[string]string) func(http.ResponseWriter, *http.Request) bool {
	return func(http.ResponseWriter, *http.Request) bool {
		var got map[string]string
		for _, k := range s.keys() {
			if name := strings.TrimPrefix(k, key+"/"); !strings.HasPrefix(name, hiddenPrefix) {
				if got == nil {
					got = map[string]string{}
				}
				got[name] = s.get(k)
			}
		}
		if _, marked := got["manifest.json"]; !marked {
			return false
		}
		for _, want := range whole {
			if subset(want, got) {
				return false
			}
		}
		t.Errorf("a reader sees a mixture: %v", got)
		return false
	}
}

// subset reports whether all of want is in got; more does no harm, as the marker does not
// name it.
func subset(want, got map[string]string) bool {
	for name, text := range want {
		if got[name] != text {
			return false
		}
	}
	return true
}

func TestPushOverAnEarlierOne(t *testing.T) {
	s := newServer(t)
	ctx := context.Background()
	one := map[string]string{"manifest.json": "m1", "part-0": "a", "part-1": "b", "part-2": "c"}
	two := map[string]string{"manifest.json": "m2", "part-0": "a", "part-1": "B", "part-3": "d"}
	opt := PushOptions{Last: []string{"manifest.json"}}
	if err := Push(ctx, tree(t, one), at("cache"), opt); err != nil {
		t.Fatal(err)
	}
	s.requests("")
	s.failing(s.watchMarker(t, "cache", one, two))
	if err := Push(ctx, tree(t, two), at("cache"), opt); err != nil {
		t.Fatal(err)
	}
	s.failing(nil)
	for _, line := range s.requests("PUT ") {
		if strings.HasSuffix(line, "/part-0") {
			t.Errorf("what did not change was written: %s", line)
		}
	}
	if diff := cmp.Diff(two, files(t, fetch(t, at("cache"), t.TempDir()))); diff != "" {
		t.Errorf("fetched (-want +got):\n%s", diff)
	}
	if got := s.keys(); len(got) != len(two) {
		t.Errorf("the bucket holds %q, want what was pushed", got)
	}
}

func TestPushRefusesWhatItDidNotWrite(t *testing.T) {
	s := newServer(t)
	s.put("cache/thesis.pdf", "years of work")
	err := Push(context.Background(), tree(t, map[string]string{"manifest.json": "m"}), at("cache"), PushOptions{Last: []string{"manifest.json"}})
	if KindOf(err) != Exists || !strings.Contains(err.Error(), "thesis.pdf") || !strings.Contains(err.Error(), at("cache")) {
		t.Errorf("error is %v, want one of kind Exists that names what is there", err)
	}
	if got := s.keys(); !slices.Equal(got, []string{"cache/thesis.pdf"}) {
		t.Errorf("the bucket holds %q", got)
	}
}

// TestAPushBesideOthers leaves alone what is not its own.
func TestAPushBesideOthers(t *testing.T) {
	s := newServer(t)
	ctx := context.Background()
	s.put("cache/shards/0/part", "of a shard")
	opt := PushOptions{Last: []string{"manifest.json"}, Apart: "shards"}
	for _, text := range []string{"m1", "m2"} {
		folder := tree(t, map[string]string{"manifest.json": text, "part": "a " + text, "shards/1/part": "not the cache's"})
		if err := Push(ctx, folder, at("cache"), opt); err != nil {
			t.Fatal(err)
		}
		want := map[string]string{"manifest.json": text, "part": "a " + text, "shards/0/part": "of a shard"}
		if diff := cmp.Diff(want, files(t, fetch(t, at("cache"), t.TempDir()))); diff != "" {
			t.Errorf("fetched (-want +got):\n%s", diff)
		}
	}
}

// TestTwoPushTheSame lets another process begin and end a push of the same folder between two
// requests of the first.
func TestTwoPushTheSame(t *testing.T) {
	s := newServer(t)
	ctx := context.Background()
	content := map[string]string{"manifest.json": "m", "part-0": "a", "part-1": "b"}
	opt := PushOptions{Last: []string{"manifest.json"}}
	// What the listing shows is half of the other's push; when the first asks for its sign,
	// that is gone and the marker is there.
	between := func(do func() error) error {
		s.put("cache/part-0", "a")
		ended := false
		s.failing(func(_ http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodHead && strings.HasSuffix(r.URL.Path, signName) && !ended {
				ended = true
				s.put("cache/part-1", "b")
				s.put("cache/manifest.json", "m")
			}
			return false
		})
		defer s.failing(nil)
		return do()
	}
	if err := between(func() error { return Push(ctx, tree(t, content), at("cache"), opt) }); err != nil {
		t.Errorf("the push: %v", err)
	}
	if got, want := s.keys(), []string{"cache/manifest.json", "cache/part-0", "cache/part-1"}; !slices.Equal(got, want) {
		t.Errorf("the bucket holds %q, want %q", got, want)
	}

	s = newServer(t)
	var state State
	err := between(func() (err error) { state, err = Look(ctx, at("cache"), "manifest.json"); return err })
	if err != nil || state.Marker != "manifest.json" || state.Foreign != "" {
		t.Errorf("the place is %+v, %v, want a whole one", state, err)
	}
}

func TestClear(t *testing.T) {
	s := newServer(t)
	ctx := context.Background()
	for _, key := range []string{"cache/a", "cache/below/b", "cache/manifest.json", "cache/" + signName, "cache-2/a"} {
		s.put(key, "x")
	}
	b, err := Open(ctx, at("cache"))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	s.requests("")
	if err := errors.Join(b.Clear(ctx, "manifest.json"), b.Clear(ctx, "manifest.json")); err != nil {
		t.Fatal(err)
	}
	if got := s.keys(); !slices.Equal(got, []string{"cache-2/a"}) {
		t.Errorf("the bucket holds %q, want what is beside the place", got)
	}
	if first := s.requests("DELETE "); len(first) == 0 || !strings.HasSuffix(first[0], "/cache/manifest.json") {
		t.Errorf("removed was %q, want the marker first", first)
	}
}

// TestFilesOfTheCacheInAFolder: files of a folder that is made to be read are those of the
// cache, and take no room of their own; else they are copies.
func TestFilesOfTheCacheInAFolder(t *testing.T) {
	s := newServer(t)
	s.put("data/a.jsonl", "a")
	cache := t.TempDir()
	kept, err := os.Stat(filepath.Join(fetch(t, at("data"), cache), "a.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	for _, shared := range []bool{false, true} {
		into := filepath.Join(t.TempDir(), "folder")
		if _, err := Fetch(context.Background(), at("data"), FetchOptions{Cache: cache, Into: into, Shared: shared}); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(filepath.Join(into, "a.jsonl"))
		if err != nil || os.SameFile(kept, info) != shared {
			t.Errorf("shared=%v: the file is the cache's: %v, %v", shared, !shared, err)
		}
	}
}

func TestLinksOfAFolder(t *testing.T) {
	s := newServer(t)
	ctx := context.Background()
	dir := tree(t, map[string]string{"summary.json": "s", "checkpoints/step-1/adapter": "one", "checkpoints/step-2/adapter": "two"})
	if err := os.Symlink(filepath.Join("checkpoints", "step-2"), filepath.Join(dir, "best")); err != nil {
		t.Skip(err)
	}
	if err := Push(ctx, dir, at("run"), PushOptions{Last: []string{"summary.json"}}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"adapter": "two"}, files(t, fetch(t, at("run/best"), t.TempDir()))); diff != "" {
		t.Errorf("behind the link (-want +got):\n%s", diff)
	}
	run := fetch(t, at("run"), t.TempDir())
	if target, err := os.Readlink(filepath.Join(run, "best")); err != nil || target != filepath.Join("checkpoints", "step-2") {
		t.Errorf("in the folder, best leads to %q, %v", target, err)
	}
	for _, target := range []string{"/etc", "../..", "../../etc/passwd"} {
		s.put("evil/a", linkObject(target))
		for _, url := range []string{at("evil"), at("evil/a")} {
			if _, err := Fetch(ctx, url, FetchOptions{Cache: t.TempDir()}); err == nil && url == at("evil") {
				t.Errorf("%s with a link to %q was fetched", url, target)
			}
		}
	}
}

func TestNamesThatLeadOutOfTheFolder(t *testing.T) {
	s := newServer(t)
	for _, key := range []string{"d/../../x", `d/..\..\x`} {
		s.put(key, "x")
		_, err := Fetch(context.Background(), at("d"), FetchOptions{Cache: t.TempDir()})
		if err == nil || !strings.Contains(err.Error(), "out of the folder") {
			t.Errorf("%q: error is %v", key, err)
		}
		if _, err := s.backend.DeleteObject(bucket, key); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPointers(t *testing.T) {
	newServer(t)
	checkPointers(t, at("published"))
}

// checkPointers writes, reads and replaces an object on conditions, below a URL where there is none.
func checkPointers(t *testing.T, url string) {
	t.Helper()
	ctx := context.Background()
	b, err := Open(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if _, _, err := b.ReadPointer(ctx, "current"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of none: %v", err)
	}
	if err := b.WritePointer(ctx, "current", []byte("v1"), Condition{Absent: true}); err != nil {
		t.Fatal(err)
	}
	if err := b.WritePointer(ctx, "current", []byte("v2"), Condition{Absent: true}); KindOf(err) != Exists || !errors.Is(err, fs.ErrExist) {
		t.Errorf("where one is: %v", err)
	}
	data, version, err := b.ReadPointer(ctx, "current")
	if err != nil || string(data) != "v1" {
		t.Fatalf("read %q, %v", data, err)
	}
	if err := b.WritePointer(ctx, "current", []byte("v3"), Condition{Version: version}); err != nil {
		t.Fatal(err)
	}
	if err := b.WritePointer(ctx, "current", []byte("v4"), Condition{Version: version}); KindOf(err) != Changed {
		t.Errorf("over a newer one: %v", err)
	}
	if data, _, err := b.ReadPointer(ctx, "current"); string(data) != "v3" {
		t.Errorf("read %q, %v, want v3", data, err)
	}
	if err := errors.Join(b.Delete(ctx, "current"), b.Delete(ctx, "current")); err != nil {
		t.Error(err)
	}
	if there, err := b.Exists(ctx, "current"); there || err != nil {
		t.Errorf("removed, it is there: %v, %v", there, err)
	}
}

func TestURLs(t *testing.T) {
	for _, tc := range []struct {
		text        string
		isURL       bool
		redacted    string
		bucket, key string
	}{
		{text: "s3://b/a/c*.parquet", isURL: true, bucket: "b", key: "a/c*.parquet"},
		{text: "s3://b/a/part-?.jsonl", isURL: true, bucket: "b", key: "a/part-?.jsonl"},
		{text: "s3://b/a?endpoint=http://u:p@h:9000&region=x", isURL: true, redacted: "s3://b/a?endpoint=http%3A%2F%2Fh%3A9000&region=x", bucket: "b", key: "a"},
		{text: "s3://key:secret@b/a", isURL: true, redacted: "s3://b/a", bucket: "key:secret@b", key: "a"},
		{text: "azblob://c/x?sas_token=sig", isURL: true, redacted: "azblob://c/x", bucket: "c", key: "x"},
		{text: "gs://b", isURL: true, bucket: "b"},
		{text: "file:///tmp/x", isURL: true, bucket: "/", key: "tmp/x"},
		{text: "./model"},
		{text: "C:/model"},
		{text: "http://h/x"},
		{text: "s3:/b"},
	} {
		if got := IsURL(tc.text); got != tc.isURL {
			t.Errorf("IsURL(%q) is %v", tc.text, got)
		}
		if tc.redacted == "" {
			tc.redacted = tc.text
		}
		if got := Redact(tc.text); got != tc.redacted {
			t.Errorf("Redact(%q) is %q, want %q", tc.text, got, tc.redacted)
		}
		if l, err := parse(tc.text); tc.isURL && (err != nil || l.bucket != tc.bucket || l.key != tc.key) {
			t.Errorf("%q is bucket %q, key %q, %v", tc.text, l.bucket, l.key, err)
		}
	}
	if path, local := Local("file:///tmp/a%20b"); path != "/tmp/a b" || !local {
		t.Errorf("the file is %q, %v", path, local)
	}
	for text, want := range map[string]string{
		"s3://b/a/*.jsonl": "s3://b", "s3://b/*.jsonl": "s3:/", "s3://b": "s3:/", "s3://b/c/a/model/": "s3://b/c/a", "s3://b/a/x.jsonl?region=r": "s3://b/a",
	} {
		if got := Parent(text); got != want {
			t.Errorf("Parent(%q) is %q, want %q", text, got, want)
		}
	}
	if got := Join("s3://b/a/?region=x", "c"); got != "s3://b/a/c?region=x" {
		t.Errorf("joined: %q", got)
	}
}

// TestFileURLs pushes and fetches with a folder in the place of a bucket.
func TestFileURLs(t *testing.T) {
	ctx := context.Background()
	content := map[string]string{"manifest.json": "m", "part-0": "a"}
	url := "file://" + filepath.ToSlash(t.TempDir()) + "/cache"
	if err := Push(ctx, tree(t, content), url, PushOptions{Last: []string{"manifest.json"}}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(content, files(t, fetch(t, url, t.TempDir()))); diff != "" {
		t.Errorf("fetched (-want +got):\n%s", diff)
	}
}
