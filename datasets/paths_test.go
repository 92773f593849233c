package datasets

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// tree makes empty files under a new folder.
func tree(t *testing.T, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range names {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestExpand(t *testing.T) {
	dir := tree(t, "b.jsonl", "a.parquet", "sub/c.JSON.gz", "sub/deep/d.arrow", "README.md", "dataset_info.json",
		".hidden.jsonl", ".git/x.jsonl", "_temporary/y.jsonl", "z.jsonl.tmp", "w.jsonl~", ".dpo-pipe-tmp-1.jsonl", "e.jsonl.zst")
	link := filepath.Join(dir, "linked.jsonl")
	if err := os.Symlink(filepath.Join(dir, "b.jsonl"), link); err != nil {
		t.Skip(err)
	}
	cases := []struct {
		name  string
		paths []string
		want  string
		err   string
	}{
		{"folder", []string{"."}, "a.parquet b.jsonl e.jsonl.zst linked.jsonl sub/c.JSON.gz sub/deep/d.arrow", ""},
		{"glob", []string{"*.jsonl*"}, "b.jsonl e.jsonl.zst linked.jsonl", ""},
		{"glob of folders", []string{"s*"}, "sub/c.JSON.gz sub/deep/d.arrow", ""},
		{"files keep their order and may repeat", []string{"b.jsonl", "a.parquet", "b.jsonl"}, "b.jsonl a.parquet b.jsonl", ""},
		{"named itself", []string{"README.md", ".hidden.jsonl"}, "README.md .hidden.jsonl", ""},
		{"no match", []string{"*.nothing"}, "", "names no data file"},
		{"no data", []string{".git/../_temporary/../.git/none"}, "", "no such file"},
		{"bad glob", []string{"[x"}, "", "syntax error"},
		{"none", nil, "", "no paths"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var paths []string
			for _, p := range c.paths {
				paths = append(paths, filepath.Join(dir, p))
			}
			r, err := Open(paths, DefaultOptions())
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("got %v, want %q", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, f := range r.Files() {
				rel, err := filepath.Rel(dir, f)
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, filepath.ToSlash(rel))
			}
			if diff := cmp.Diff(strings.Fields(c.want), got); diff != "" {
				t.Error(diff)
			}
			if c.name == "folder" && len(r.Findings()) != 2 {
				t.Errorf("findings %q, want README.md and dataset_info.json", r.Findings())
			}
		})
	}
}

func TestOptionsAreChecked(t *testing.T) {
	path := writeRows(t, "rows.jsonl", `{}`)
	for name, change := range map[string]func(*Options){
		"no name":     func(o *Options) { o.Columns.Chosen = "" },
		"name twice":  func(o *Options) { o.Columns.ID = "prompt" },
		"no row size": func(o *Options) { o.MaxRowBytes = 0 },
	} {
		opt := DefaultOptions()
		change(&opt)
		if _, err := Open([]string{path}, opt); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestFingerprint(t *testing.T) {
	dir := tree(t, "a.jsonl", "b.jsonl", "x")
	a, b := sha256.Sum256([]byte("a.jsonl")), sha256.Sum256([]byte("b.jsonl"))
	both := sha256.Sum256(append(a[:], b[:]...))
	for _, c := range []struct {
		paths []string
		want  []byte
	}{
		{[]string{filepath.Join(dir, "a.jsonl")}, a[:]},
		{[]string{dir}, both[:]},
		{[]string{filepath.Join(dir, "a.jsonl"), filepath.Join(dir, "b.jsonl")}, both[:]},
	} {
		got, err := Fingerprint(context.Background(), c.paths)
		if err != nil || got != hex.EncodeToString(c.want) {
			t.Errorf("%v: got %s and %v, want %x", c.paths, got, err, c.want)
		}
	}
}
