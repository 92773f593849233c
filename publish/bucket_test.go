package publish

import (
	"context"
	"errors"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"

	"github.com/dpo-pipe/dpo-pipe/internal/lockfile"
	"github.com/dpo-pipe/dpo-pipe/store"
	"github.com/dpo-pipe/dpo-pipe/store/storetest"
)

// eachBucket runs a test with a place on a server in process, and on servers that others wrote.
func eachBucket(t *testing.T, test func(t *testing.T, url string)) {
	t.Run("server in process", func(t *testing.T) {
		backend := s3mem.New()
		if err := backend.CreateBucket("bkt"); err != nil {
			t.Fatal(err)
		}
		web := httptest.NewServer(gofakes3.New(backend).Server())
		t.Cleanup(web.Close)
		t.Setenv("AWS_ENDPOINT_URL", web.URL)
		t.Setenv("AWS_ACCESS_KEY_ID", "key")
		t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
		t.Setenv(store.CacheVariable, t.TempDir())
		test(t, "s3://bkt/policies")
	})
	storetest.Each(t, []string{"bkt"}, func(t *testing.T, s *storetest.Server) {
		t.Setenv(store.CacheVariable, t.TempDir())
		test(t, s.At("bkt/policies"))
	})
}

// policyOf writes a policy folder of one file with this text.
func policyOf(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{"model.onnx": text, "adapter/adapter_config.json": "{}"} {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// published is the model of the current version as a reader finds it: by the pointer.
func published(t *testing.T, url string) string {
	t.Helper()
	p, err := Open(url)
	if err != nil {
		t.Fatal(err)
	}
	_, folder, ok, err := p.Current()
	if err != nil || !ok {
		t.Fatalf("current: %v, %v", ok, err)
	}
	cache := store.FetchOptions{Cache: t.TempDir()}
	named, err := store.Fetch(context.Background(), store.Join(folder, "model.onnx"), cache)
	if err != nil {
		t.Fatal(err)
	}
	paths, err := store.Fetch(context.Background(), store.Join(url, "current"), cache)
	if err != nil {
		t.Fatal(err)
	}
	a, errA := os.ReadFile(named[0])
	text, err := os.ReadFile(filepath.Join(paths[0], "model.onnx"))
	if errA != nil || string(a) != string(text) {
		t.Errorf("the version holds %q, current %q, %v", a, text, errA)
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestPublishToABucket(t *testing.T) {
	eachBucket(t, func(t *testing.T, url string) {
		ctx := context.Background()
		p, err := Open(url)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, ok, err := p.Current(); ok || err != nil {
			t.Fatalf("an empty place has a current version: %v, %v", ok, err)
		}
		for _, v := range []string{"v1", "v2", "v3"} {
			if err := p.Publish(ctx, v, policyOf(t, "weights of "+v), map[string]string{"run": v}); err != nil {
				t.Fatal(err)
			}
			if got := published(t, url); got != "weights of "+v {
				t.Errorf("current holds %q behind %s", got, v)
			}
		}
		if err := p.Publish(ctx, "v3", policyOf(t, "weights of v3"), nil); err != nil {
			t.Errorf("the same again: %v", err)
		}
		var exists *ExistsError
		if err := p.Publish(ctx, "v3", policyOf(t, "others"), nil); !errors.As(err, &exists) || exists.File != "model.onnx" {
			t.Errorf("the same version with other files: %v", err)
		}
		from, to, err := p.Rollback(ctx, "")
		if err != nil || from != "v3" || to != "v2" || published(t, url) != "weights of v2" {
			t.Errorf("rolled back from %q to %q, %v", from, to, err)
		}
		var withdrawn *WithdrawnError
		if err := p.Publish(ctx, "v3", policyOf(t, "weights of v3"), nil); !errors.As(err, &withdrawn) {
			t.Errorf("what was rolled back: %v", err)
		}
		if err := p.Publish(ctx, "v4", policyOf(t, "weights of v4"), nil); err != nil {
			t.Fatal(err)
		}
		removed, err := p.Retain(ctx, 2)
		if err != nil || !slices.Equal(removed, []string{"v3", "v1"}) {
			t.Errorf("removed %q, %v, want the withdrawn v3 and the oldest", removed, err)
		}
		versions, err := p.Versions()
		if err != nil || len(versions) != 2 || versions[0].Name != "v2" || versions[1].Name != "v4" || versions[1].Meta == nil && versions[1].Sequence != 4 {
			t.Errorf("versions are %+v, %v", versions, err)
		}
	})
}

func TestABucketsDamage(t *testing.T) {
	eachBucket(t, func(t *testing.T, url string) {
		ctx := context.Background()
		p, err := Open(url)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range []string{"v1", "v2"} {
			if err := p.Publish(ctx, v, policyOf(t, v), nil); err != nil {
				t.Fatal(err)
			}
		}
		at, err := store.Open(ctx, url)
		if err != nil {
			t.Fatal(err)
		}
		defer at.Close()
		if err := at.WritePointer(ctx, "versions/v1/model.onnx", []byte("x1"), store.Condition{}); err != nil {
			t.Fatal(err)
		}
		var damaged *DamagedError
		if _, _, err := p.Rollback(ctx, ""); !errors.As(err, &damaged) || damaged.Version != "v1" {
			t.Errorf("back to a damaged version: %v", err)
		}
		if err := at.WritePointer(ctx, "current", store.Link("../../elsewhere"), store.Condition{}); err != nil {
			t.Fatal(err)
		}
		var astray *PlaceError
		if _, _, _, err := p.Current(); !errors.As(err, &astray) {
			t.Errorf("a pointer astray: %v", err)
		}
		if err := at.WritePointer(ctx, "current", store.Link("versions/v2"), store.Condition{}); err != nil {
			t.Fatal(err)
		}
		// A version without its description is no version: a publish that was killed leaves one.
		if err := at.WritePointer(ctx, "versions/v3/model.onnx", []byte("half"), store.Condition{}); err != nil {
			t.Fatal(err)
		}
		if err := at.WritePointer(ctx, "versions/v3/.dpo-pipe-push", nil, store.Condition{}); err != nil {
			t.Fatal(err)
		}
		if versions, err := p.Versions(); err != nil || len(versions) != 2 {
			t.Errorf("versions are %+v, %v", versions, err)
		}
		if err := p.Publish(ctx, "v3", policyOf(t, "v3"), nil); err != nil || published(t, url) != "v3" {
			t.Errorf("published again: %v", err)
		}
		// A damaged description keeps nobody from publishing, unless it is the current version's.
		for _, v := range []string{"v2", "v4"} {
			if err := at.WritePointer(ctx, "versions/"+v+"/version.json", []byte("{"), store.Condition{}); err != nil {
				t.Fatal(err)
			}
			if v == "v2" {
				if err := p.Publish(ctx, "v4", policyOf(t, "v4"), nil); err != nil || published(t, url) != "v4" {
					t.Errorf("beside a damaged version: %v", err)
				}
			}
		}
		versions, err := p.Versions()
		if err != nil || len(versions) != 4 || versions[2].Name != "v2" || versions[2].Damage == "" || versions[3].Name != "v4" || versions[3].Damage == "" {
			t.Errorf("versions are %+v, %v, want v2 and v4 damaged", versions, err)
		}
		if err := p.Publish(ctx, "v5", policyOf(t, "v5"), nil); !errors.As(err, &damaged) || damaged.Version != "v4" {
			t.Errorf("over a damaged current version: %v", err)
		}
		if err := at.Delete(ctx, "current"); err != nil {
			t.Fatal(err)
		}
		if _, _, _, err := p.Current(); !errors.As(err, &astray) {
			t.Errorf("without a pointer: %v", err)
		}
	})
}

func TestABucketsLock(t *testing.T) {
	eachBucket(t, func(t *testing.T, url string) {
		ctx := context.Background()
		at, err := store.Open(ctx, url)
		if err != nil {
			t.Fatal(err)
		}
		defer at.Close()
		p, err := Open(url)
		if err != nil {
			t.Fatal(err)
		}
		hold := func(since time.Time) {
			t.Helper()
			text := "process 1 on host other since 2026-01-02T03:04:05Z\nseen " + since.UTC().Format(time.RFC3339) + " x\n"
			if err := at.WritePointer(ctx, store.LockName, []byte(text), store.Condition{}); err != nil {
				t.Fatal(err)
			}
		}
		hold(time.Now())
		var locked *lockfile.LockedError
		if err := p.Publish(ctx, "v1", policyOf(t, "v1"), nil); !errors.As(err, &locked) || !strings.Contains(err.Error(), "host other") {
			t.Errorf("while another writes: %v", err)
		}
		hold(time.Now().Add(-store.Lease - time.Minute))
		if err := p.Publish(ctx, "v1", policyOf(t, "v1"), nil); err != nil {
			t.Errorf("behind one that was killed long ago: %v", err)
		}
		if there, err := at.Exists(ctx, store.LockName); there || err != nil {
			t.Errorf("the lock stays: %v, %v", there, err)
		}
	})
}
