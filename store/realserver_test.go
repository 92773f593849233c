package store

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dpo-pipe/dpo-pipe/store/storetest"
)

// TestARealServer pushes and fetches on servers that others wrote.
func TestARealServer(t *testing.T) {
	storetest.Each(t, []string{bucket}, func(t *testing.T, s *storetest.Server) {
		shortWaits(t)
		ctx := context.Background()
		place := s.At(bucket + "/cache")
		opt := PushOptions{Last: []string{"manifest.json"}}
		one := map[string]string{"manifest.json": "m1", "part-0": large(40<<20 + 7), "part-1": "b", "below/part 2+ü": "c", "empty": ""}
		if err := Push(ctx, tree(t, one), place, opt); err != nil {
			t.Fatal(err)
		}
		cache := t.TempDir()
		if diff := cmp.Diff(one, files(t, fetch(t, place, cache))); diff != "" {
			t.Errorf("fetched (-want +got):\n%.2000s", diff)
		}
		before := s.Written(t, bucket, "cache/part-0")
		two := map[string]string{"manifest.json": "m2", "part-0": one["part-0"], "part-1": "B", "part-3": "d"}
		if err := Push(ctx, tree(t, two), place, opt); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(two, files(t, fetch(t, place, cache))); diff != "" {
			t.Errorf("fetched the second (-want +got):\n%.2000s", diff)
		}
		// Azure gives no checksum of what was written in blocks, so that is written again.
		if after := s.Written(t, bucket, "cache/part-0"); after != before && s.Name != "azurite" {
			t.Errorf("an object of several parts that did not change was written again: it was %s and is %s", before, after)
		}
		if got, want := s.Objects(t, bucket), []string{"cache/manifest.json", "cache/part-0", "cache/part-1", "cache/part-3"}; !slices.Equal(got, want) {
			t.Errorf("the bucket holds %q, want %q", got, want)
		}
		if paths, err := Fetch(ctx, place+"/part-[13]", FetchOptions{Cache: cache}); err != nil || len(paths) != 2 {
			t.Errorf("a pattern: %q, %v", paths, err)
		}
	})
}

func TestPointersOfARealServer(t *testing.T) {
	storetest.Each(t, []string{bucket}, func(t *testing.T, s *storetest.Server) {
		checkPointers(t, s.At(bucket+"/published"))
	})
}

// TestPlacesThatAreNotOnARealServer asks for what is not there.
func TestPlacesThatAreNotOnARealServer(t *testing.T) {
	storetest.Each(t, []string{bucket}, func(t *testing.T, s *storetest.Server) {
		shortWaits(t)
		for _, place := range []string{"nobody/x", bucket + "/none", bucket + "/none/", bucket + "/none/*.jsonl"} {
			if _, err := Fetch(context.Background(), s.At(place), FetchOptions{Cache: t.TempDir()}); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: %v", place, err)
			}
		}
		dir := tree(t, map[string]string{"manifest.json": "m"})
		if err := Push(context.Background(), dir, s.At("nobody/cache"), PushOptions{Last: []string{"manifest.json"}}); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a push to no bucket: %v", err)
		}
	})
}

func TestRefusalsOfARealServer(t *testing.T) {
	s := storetest.Start(t, []string{bucket})
	ctx := context.Background()
	dir := tree(t, map[string]string{"manifest.json": "m"})
	opt := PushOptions{Last: []string{"manifest.json"}}
	if err := Push(ctx, dir, at("cache"), opt); err != nil {
		t.Fatal(err)
	}
	if _, err := Fetch(ctx, "s3://nobody/x", FetchOptions{Cache: t.TempDir()}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no bucket: %v", err)
	}
	if _, err := Fetch(ctx, at("none"), FetchOptions{Cache: t.TempDir()}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no object: %v", err)
	}
	s.Serve(t, "--readonly")
	if diff := cmp.Diff(map[string]string{"manifest.json": "m"}, files(t, fetch(t, at("cache"), t.TempDir()))); diff != "" {
		t.Errorf("read only (-want +got):\n%s", diff)
	}
	if err := Push(ctx, dir, at("other"), opt); KindOf(err) != Denied || !strings.Contains(err.Error(), at("other/")) {
		t.Errorf("a write where only reading is allowed: %v", err)
	}
	useCredentials(t, storetest.AccessKey, "wrong-and-secret")
	if err := Push(ctx, dir, at("other"), opt); KindOf(err) != Denied || strings.Contains(err.Error(), "wrong-and-secret") {
		t.Errorf("a wrong secret: %v", err)
	}
	useCredentials(t, "nobody", "secret")
	if _, err := Fetch(ctx, at("cache/"), FetchOptions{Cache: t.TempDir()}); KindOf(err) != Denied {
		t.Errorf("an unknown key: %v", err)
	}
	if got := s.Objects(t, bucket); !slices.Equal(got, []string{"cache/manifest.json"}) {
		t.Errorf("the bucket holds %q", got)
	}
}

// TestAPushKilledOnARealServer kills a push when parts of a large object have arrived.
func TestAPushKilledOnARealServer(t *testing.T) {
	s := storetest.Start(t, []string{bucket})
	dir := tree(t, map[string]string{"manifest.json": "m", "part-0": large(200 << 20), "part-1": "b"})
	cmd := child(t, childPush, dir)
	for deadline := time.Now().Add(time.Minute); !arrived(t, s); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no part arrived")
		}
	}
	kill(t, cmd)
	for _, name := range s.Objects(t, bucket) {
		if strings.HasSuffix(name, "manifest.json") || strings.HasSuffix(name, "part-0") {
			t.Errorf("the bucket shows %s", name)
		}
	}
	if err := Push(context.Background(), dir, at("cache"), PushOptions{Last: []string{"manifest.json"}}); err != nil {
		t.Fatal(err)
	}
	if got, want := s.Objects(t, bucket), []string{"cache/manifest.json", "cache/part-0", "cache/part-1"}; !slices.Equal(got, want) {
		t.Errorf("the bucket holds %q, want %q", got, want)
	}
}

// arrived reports whether a part of an object has arrived.
func arrived(t *testing.T, s *storetest.Server) (any bool) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(s.Folder, bucket, ".sgwtmp"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			any = true
		}
		return nil // folders come and go
	})
	if err != nil {
		t.Fatal(err)
	}
	return any
}
