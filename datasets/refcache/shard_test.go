package refcache

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dpo-pipe/dpo-pipe/datasets"
	"github.com/dpo-pipe/dpo-pipe/internal/atomicfile"
	"github.com/dpo-pipe/dpo-pipe/internal/lockfile"
)

// runShard is the pass of runPass, as the process of one shard runs it.
func runShard(t *testing.T, dir string, s Shard, identity map[string]string) (parts int, err error) {
	t.Helper()
	m, h := testManifest(passWidth, F16)
	m.Shard = &s
	if identity != nil {
		m.Identity = identity
	}
	w, err := Create(s.Dir(dir), m, h)
	if err != nil {
		return 0, err
	}
	defer w.Close()
	pos, n := w.Position(), s.Next(w.Parts())
	var rows []Row
	for pos.Rows < passSource {
		i := int(pos.Rows)
		pos.Rows++
		if i%5 == 4 {
			pos.Dropped.Add(&datasets.RowError{File: "a.jsonl", Row: int64(i), Reason: datasets.EmptyCompletion, Detail: fmt.Sprint("row ", i)})
		} else {
			pos.Truncated += int64(i % 2)
			rows = append(rows, testRow(i, passWidth, F16))
		}
		if len(rows) < 3 && (pos.Rows < passSource || len(rows) == 0) {
			continue
		}
		if n%s.Of == s.Index {
			if err := w.WritePart(rows, pos); err != nil {
				return parts, err
			}
			parts++
		}
		rows, n = rows[:0], n+1
	}
	return parts, w.Finish(pos)
}

// shards runs all shards of a split.
func shards(t *testing.T, of int) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "cache")
	for i := range of {
		if _, err := runShard(t, dir, Shard{i, of}, nil); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// wantFiles wants the files of a folder, and nothing else in it.
func wantFiles(t *testing.T, dir string, want map[string]string) {
	t.Helper()
	got := files(t, dir)
	for name, content := range want {
		if got[name] != content {
			t.Errorf("%s differs", name)
		}
	}
	if a, b := slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)); !slices.Equal(a, b) {
		t.Errorf("the folder holds %v, want %v", a, b)
	}
}

// noLinks is a file system without them.
func noLinks(t *testing.T) {
	link = func(string, string) error { return errors.ErrUnsupported }
	t.Cleanup(func() { link = os.Link })
}

// The six parts of the pass are in one shard, in shards of several parts, and in more
// shards than there are parts; files are linked or copied. All are the cache of a single
// process.
func TestAssembledShardsAreTheCacheOfOneProcess(t *testing.T) {
	want := uninterrupted(t)
	for _, of := range []int{1, 2, 3, 5, 6, 8} {
		for _, copied := range []bool{false, true} {
			t.Run(fmt.Sprintf("of=%d/copied=%v", of, copied), func(t *testing.T) {
				if copied {
					noLinks(t)
				}
				dir := shards(t, of)
				if err := Assemble(context.Background(), dir, Assembly{}); err != nil {
					t.Fatal(err)
				}
				wantFiles(t, dir, want)
				if err := Assemble(context.Background(), dir, Assembly{}); !errors.Is(err, ErrComplete) {
					t.Errorf("again: %v, want that it is complete", err)
				}
				wantFiles(t, dir, want)
				r := open(t, dir)
				if err := r.Verify(context.Background(), nil); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// TestKilledAssembly leaves a folder as a kill at each step does; run again, the cache is
// that of a single process.
func TestKilledAssembly(t *testing.T) {
	want := uninterrupted(t)
	for _, c := range []struct {
		name string
		kill func(t *testing.T, dir string)
	}{
		{"with the lock", func(t *testing.T, dir string) { write(t, dir, lockfile.Name, "") }},
		{"with some parts", func(t *testing.T, dir string) {
			for _, name := range []string{partName(0), headName} {
				if err := os.Link(filepath.Join((&Shard{0, 2}).Dir(dir), name), filepath.Join(dir, name)); err != nil {
					t.Fatal(err)
				}
			}
		}},
		{"in the copy of a part", func(t *testing.T, dir string) { write(t, dir, atomicfile.TempPrefix+"1", want[partName(0)][:20]) }},
		{"with parts of another cache", func(t *testing.T, dir string) { write(t, dir, partName(7), "left over") }},
		{"before the shards are removed", func(t *testing.T, dir string) {
			if err := Assemble(context.Background(), dir, Assembly{Keep: true}); err != nil {
				t.Fatal(err)
			}
			for i := range 2 {
				if err := verifyShard(dir, Shard{i, 2}); err != nil {
					t.Errorf("a kept shard: %v", err)
				}
			}
		}},
		{"while the shards are removed", func(t *testing.T, dir string) {
			if err := Assemble(context.Background(), dir, Assembly{Keep: true}); err != nil {
				t.Fatal(err)
			}
			aside := filepath.Join(dir, atomicfile.TempPrefix+"1")
			if err := os.Mkdir(aside, 0o777); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(filepath.Join(dir, ShardsName), filepath.Join(aside, "old")); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := shards(t, 2)
			c.kill(t, dir)
			if err := Assemble(context.Background(), dir, Assembly{}); err != nil && !errors.Is(err, ErrComplete) {
				t.Fatal(err)
			}
			wantFiles(t, dir, want)
		})
	}
}

func verifyShard(dir string, s Shard) error {
	m, err := readManifest(s.Dir(dir))
	for _, p := range m.Files() {
		err = errors.Join(err, newVerifier(context.Background(), func(int) {}).part(s.Dir(dir), p))
	}
	return err
}

// TestAssembleNamesWhatIsWrong damages a split into four and wants the shards named, and
// nothing written.
func TestAssembleNamesWhatIsWrong(t *testing.T) {
	remove := func(path ...string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			if err := os.RemoveAll(filepath.Join(append([]string{dir, ShardsName}, path...)...)); err != nil {
				t.Fatal(err)
			}
		}
	}
	all := func(steps ...func(*testing.T, string)) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			for _, step := range steps {
				step(t, dir)
			}
		}
	}
	flip := func(shard, name string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			path := filepath.Join(dir, ShardsName, shard)
			data := []byte(files(t, path)[name])
			data[len(data)/2] ^= 1
			write(t, path, name, string(data))
		}
	}
	again := func(s Shard, identity map[string]string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			if err := os.RemoveAll(s.Dir(dir)); err != nil {
				t.Fatal(err)
			}
			if _, err := runShard(t, dir, s, identity); err != nil {
				t.Fatal(err)
			}
		}
	}
	first, _ := testManifest(passWidth, F16)
	changed := func(key, value string) map[string]string {
		id := maps.Clone(first.Identity)
		id[key] = value
		return id
	}
	for _, c := range []struct {
		name    string
		damage  func(t *testing.T, dir string)
		of      int
		want    []string
		is      error
		lacking bool
	}{
		{name: "missing", damage: all(remove("shard-00001-of-00004"), remove("shard-00003-of-00004")), want: []string{"missing: 1,3"}, lacking: true},
		{name: "the last is missing", damage: remove("shard-00003-of-00004"), want: []string{"missing: 3"}, lacking: true},
		{name: "unfinished", damage: func(t *testing.T, dir string) {
			m, h := testManifest(passWidth, F16)
			m.Shard = &Shard{2, 4}
			remove("shard-00002-of-00004")(t, dir)
			w, err := Create(m.Shard.Dir(dir), m, h)
			if err != nil {
				t.Fatal(err)
			}
			w.Close()
		}, want: []string{"unfinished: 2"}, lacking: true},
		{name: "begun", damage: remove("shard-00002-of-00004", manifestName), want: []string{"unfinished: 2"}, lacking: true},
		{name: "bit of a part", damage: flip("shard-00001-of-00004", partName(5)), want: []string{"damaged: 1", partName(5)}, lacking: true},
		{name: "bit of the head", damage: flip("shard-00000-of-00004", headName), want: []string{"damaged: 0", headName}, lacking: true},
		{name: "part is gone", damage: remove("shard-00002-of-00004", partName(2)), want: []string{"damaged: 2", partName(2)}, lacking: true},
		{name: "manifest is not JSON", damage: func(t *testing.T, dir string) { write(t, (&Shard{3, 4}).Dir(dir), manifestName, "{") }, want: []string{"damaged: 3", manifestName}, lacking: true},
		{name: "one for another", damage: func(t *testing.T, dir string) {
			remove("shard-00002-of-00004")(t, dir)
			if err := os.Rename((&Shard{3, 4}).Dir(dir), (&Shard{2, 4}).Dir(dir)); err != nil {
				t.Fatal(err)
			}
		}, want: []string{"missing: 3", "damaged: 2", "holds shard 3 of 4"}, lacking: true},
		{
			name: "several", damage: all(remove("shard-00000-of-00004"), flip("shard-00001-of-00004", partName(1)), remove("shard-00002-of-00004", partName(2))),
			want: []string{"missing: 0; damaged: 1,2", partName(1), partName(2)}, lacking: true,
		},
		{name: "other identity", damage: again(Shard{2, 4}, changed("model", "m2")), want: []string{"shard 2 of 4: refcache: stale model"}},
		{name: "other identity of the first", damage: again(Shard{0, 4}, changed("model", "m2")), want: []string{"shard 0 of 4: refcache: stale model"}},
		{
			name: "other identity, and missing", damage: all(again(Shard{1, 4}, changed("data", "d2")), remove("shard-00003-of-00004")),
			want: []string{"shard 1 of 4: refcache: stale data", "missing: 3"}, lacking: true,
		},
		{name: "several splits", damage: again(Shard{1, 3}, nil), want: []string{"splits into 3 4, want those of one"}},
		{name: "several splits, one wanted", damage: again(Shard{1, 3}, nil), of: 3, want: []string{"lacks some of its 3 shards; missing: 0,2"}, lacking: true},
		{name: "no shards", damage: remove(""), want: []string{"holds neither a cache nor shards of one"}, lacking: true},
		{name: "no shards of those wanted", damage: remove(""), of: 2, want: []string{"missing: 0,1"}, lacking: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := shards(t, 4)
			c.damage(t, dir)
			before := maps.Clone(tree(t, dir))
			err := Assemble(context.Background(), dir, Assembly{Of: c.of})
			if err == nil {
				t.Fatal("joined")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error is %q, want %q in it", err, want)
				}
			}
			if _, lacking := errors.AsType[*ShardsError](err); lacking != c.lacking {
				t.Errorf("a ShardsError: %v, want %v", lacking, c.lacking)
			}
			if after := tree(t, dir); !maps.Equal(before, after) {
				t.Error("the folder changed")
			}
		})
	}
}

// tree reads all files below dir.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, pattern := range []string{"*", "*/*", "*/*/*"} {
		names, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if data, err := os.ReadFile(name); err == nil {
				all[name] = string(data)
			}
		}
	}
	return all
}

// Shards that were made of other data in spite of their identity don't make a cache.
func TestAssembleAddsUp(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(m *Manifest)
	}{
		{"a part is not counted", func(m *Manifest) {
			m.Counts.Kept -= m.Parts[len(m.Parts)-1].Rows
			m.Parts = m.Parts[:len(m.Parts)-1]
		}},
		{"more source rows", func(m *Manifest) { m.Counts.Read++ }},
		{"source rows before those of the part before", func(m *Manifest) { m.Parts[1].SourceEnd = 1 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := shards(t, 2)
			path := (&Shard{1, 2}).Dir(dir)
			m, err := readManifest(path)
			if err != nil {
				t.Fatal(err)
			}
			c.change(&m)
			if err := m.write(path); err != nil {
				t.Fatal(err)
			}
			if err := Assemble(context.Background(), dir, Assembly{}); !errors.Is(err, ErrCorrupt) {
				t.Errorf("error is %v, want corruption", err)
			}
			if IsCache(dir) {
				t.Error("a cache was made")
			}
		})
	}
}

// TestDamagedShardIsMadeAgain damages a finished shard; the same process mends it from the
// damage on, and leaves a whole one alone.
func TestDamagedShardIsMadeAgain(t *testing.T) {
	for _, c := range []struct {
		name   string
		shard  Shard
		damage func(t *testing.T, dir string)
		redo   int
	}{
		{"first part", Shard{1, 2}, func(t *testing.T, dir string) { write(t, dir, partName(1), "x") }, 3},
		{"last part is gone", Shard{1, 2}, func(t *testing.T, dir string) { os.Remove(filepath.Join(dir, partName(5))) }, 1},
		{"part and log", Shard{0, 2}, func(t *testing.T, dir string) { write(t, dir, partName(4), ""); write(t, dir, logName, "") }, 3},
		{"head", Shard{0, 2}, func(t *testing.T, dir string) { write(t, dir, headName, "") }, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := shards(t, 2)
			path := c.shard.Dir(dir)
			want := files(t, path)
			if _, err := runShard(t, dir, c.shard, nil); !errors.Is(err, ErrComplete) {
				t.Fatalf("whole, the error is %v, want that it is complete", err)
			}
			c.damage(t, path)
			parts, err := runShard(t, dir, c.shard, nil)
			if err != nil || parts != c.redo {
				t.Fatalf("%d parts made again, %v, want %d", parts, err, c.redo)
			}
			wantFiles(t, path, want)
		})
	}
}

func TestShardIsNoCache(t *testing.T) {
	dir := shards(t, 2)
	s := Shard{1, 2}
	if _, err := Open(s.Dir(dir)); !errors.Is(err, ErrNotCache) || !strings.Contains(err.Error(), "shard 1 of 2") {
		t.Errorf("open: %v, want that it is shard 1 of 2", err)
	}
	summary, err := Describe(s.Dir(dir))
	if err != nil || summary.Shard == nil || *summary.Shard != s || summary.Rows != 7 || summary.Parts != 3 {
		t.Errorf("the summary is %+v, %v, want 7 rows in 3 parts of %v", summary, err, &s)
	}
}

// Joined is what is wanted, or not at all.
func TestAssembleChecksTheIdentity(t *testing.T) {
	dir := shards(t, 2)
	for _, joined := range []bool{false, true} {
		err := Assemble(context.Background(), dir, Assembly{Want: map[string]string{"model": "another"}})
		if _, stale := errors.AsType[*StaleError](err); !stale {
			t.Errorf("joined=%v: error is %v, want that the model is stale", joined, err)
		}
		if IsCache(dir) != joined {
			t.Error("a cache was made")
		}
		first, _ := testManifest(passWidth, F16)
		if err := Assemble(context.Background(), dir, Assembly{Want: first.Identity, Keep: true}); err != nil && !errors.Is(err, ErrComplete) {
			t.Fatal(err)
		}
	}
	if _, err := runShard(t, dir, Shard{1, 3}, map[string]string{"model": "another"}); err != nil {
		t.Fatal(err)
	}
	err := Assemble(context.Background(), dir, Assembly{})
	if _, stale := errors.AsType[*StaleError](err); !stale || !strings.Contains(err.Error(), "shard 1 of 3 is of another cache") {
		t.Errorf("error is %v, want that a shard is of another cache", err)
	}
}

// TestShardsThatAreElsewhere joins shards of which only the manifests are there at first.
func TestShardsThatAreElsewhere(t *testing.T) {
	want := uninterrupted(t)
	here, there := filepath.Join(t.TempDir(), "cache"), shards(t, 3)
	for i := range 3 {
		s := Shard{i, 3}
		if err := os.MkdirAll(s.Dir(here), 0o777); err != nil {
			t.Fatal(err)
		}
		write(t, s.Dir(here), manifestName, files(t, s.Dir(there))[manifestName])
	}
	var brought []string
	bring := func(_ context.Context, names []string) error {
		brought = names
		for _, name := range names {
			if err := os.Link(filepath.Join(there, name), filepath.Join(here, name)); err != nil {
				return err
			}
		}
		return nil
	}
	if err := Assemble(context.Background(), here, Assembly{Of: 4, Bring: bring}); err == nil || brought != nil {
		t.Errorf("without a shard: %v, and %q were brought, want an error before", err, brought)
	}
	if err := Assemble(context.Background(), here, Assembly{Bring: func(context.Context, []string) error { return context.DeadlineExceeded }}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error is %v, want that of what could not be brought", err)
	}
	if err := Assemble(context.Background(), here, Assembly{Bring: func(context.Context, []string) error { return nil }}); err == nil || !strings.Contains(err.Error(), "damaged: 0,1,2") {
		t.Errorf("error is %v, want that the files of all shards are missing", err)
	}
	if err := Assemble(context.Background(), here, Assembly{Bring: bring}); err != nil {
		t.Fatal(err)
	}
	wantFiles(t, here, want)
	// The six parts of the pass, and the head.
	if len(brought) != 7 || !slices.Contains(brought, "shards/shard-00000-of-00003/"+headName) || !slices.Contains(brought, "shards/shard-00002-of-00003/"+partName(5)) {
		t.Errorf("%q were brought", brought)
	}
}
