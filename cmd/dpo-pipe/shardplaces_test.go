//go:build cgo

package main

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/dpo-pipe/dpo-pipe/internal/demo"
	"github.com/dpo-pipe/dpo-pipe/store"
)

// splitPass is a pass in shards at a URL, each on a machine of its own, and the same of one
// process on a path.
type splitPass struct {
	t    *testing.T
	dir  string
	one  string // the cache of one process
	url  string
	args []string
}

func newSplitPass(t *testing.T, url string) *splitPass {
	t.Helper()
	p := &splitPass{t: t, dir: t.TempDir(), url: url}
	if err := demo.WriteTo(p.dir); err != nil {
		t.Fatal(err)
	}
	if err := fewPairs(filepath.Join(p.dir, demo.DataFile), filepath.Join(p.dir, "few.jsonl"), "40"); err != nil {
		t.Fatal(err)
	}
	p.args = []string{"precompute-ref", "--model", demo.ModelDir, "--data", "few.jsonl", "--part-pairs", "8", "--threads", "1"}
	p.one = filepath.Join(p.dir, "one")
	must(t, p.dir, append(slices.Clone(p.args), "--out", p.one)...)
	return p
}

// shard runs one on a machine that has nothing of the others.
func (p *splitPass) shard(index string, more ...string) (string, int) {
	p.t.Helper()
	return p.shardOn(p.t.TempDir(), index, more...)
}

// shardOn runs one on the machine that has a store cache.
func (p *splitPass) shardOn(cache, index string, more ...string) (string, int) {
	p.t.Helper()
	args := append(slices.Clone(p.args), "--out", p.url, "--shards", "3", "--shard", index, "--store-cache", cache)
	return runs(p.t, p.dir, append(args, more...)...)
}

// join joins on a machine that has nothing.
func (p *splitPass) join(more ...string) (string, int) {
	p.t.Helper()
	args := []string{"precompute-ref", "--out", p.url, "--join", "--store-cache", p.t.TempDir()}
	return runs(p.t, p.dir, append(args, more...)...)
}

// ends wants an exit code and a text.
func (p *splitPass) ends(out string, code int) func(want int, text string) {
	return func(want int, text string) {
		p.t.Helper()
		if code != want || !strings.Contains(out, text) {
			p.t.Fatalf("exit %d, want %d and %q:\n%s", code, want, text, out)
		}
	}
}

// objects are the names of what is at the URL.
func (p *splitPass) objects() (names []string) {
	p.t.Helper()
	b, err := store.Open(context.Background(), p.url)
	if err != nil {
		p.t.Fatal(err)
	}
	defer b.Close()
	if err := b.List(context.Background(), func(o store.Object) error { names = append(names, o.Name); return nil }); err != nil {
		p.t.Fatal(err)
	}
	return names
}

// same wants at the URL the cache of one process, and nothing else.
func (p *splitPass) same() {
	p.t.Helper()
	sameFiles(p.t, p.one, fetched(p.t, p.url))
}

// TestShardsInStores splits a pass among machines that have a bucket in common.
func TestShardsInStores(t *testing.T) {
	eachStore(t, func(t *testing.T, at func(key string) string) { shardsInStore(newSplitPass(t, at("caches/split"))) })
}

func shardsInStore(p *splitPass) {
	t := p.t
	p.ends(p.join())(exitFailed, `"`+p.url+`" holds neither a cache nor shards of one`)
	must(t, p.dir, append(slices.Clone(p.args), "--out", p.url, "--shards", "3", "--dry-run")...)
	if names := p.objects(); len(names) > 0 {
		t.Fatalf("nothing was run, and there is %v", names)
	}
	p.ends(p.shard("2"))(exitDone, "in "+p.url+"/shards/shard-00002-of-00003 (")
	p.ends(p.shard("0"))(exitDone, "cached 16 pairs of 40 rows")
	p.ends(p.join())(exitFailed, `cache "`+p.url+`" lacks some of its 3 shards; missing: 1`)
	p.ends(p.join("--shards", "4"))(exitFailed, "missing: 0,1,2,3")
	out, code := runs(t, p.dir, append(slices.Clone(p.args), "--out", p.url)...)
	p.ends(out, code)(exitUsage, `that one holds "shards/shard-00000-of-00003/`)

	// Twice at once, by machines that don't know of each other.
	var both sync.WaitGroup
	outs, codes := make([]string, 2), make([]int, 2)
	for i := range outs {
		cache := t.TempDir()
		both.Go(func() { outs[i], codes[i] = p.shardOn(cache, "1") })
	}
	both.Wait()
	for i := range outs {
		p.ends(outs[i], codes[i])(exitDone, "shard-00001-of-00003")
	}
	p.ends(p.shard("1"))(exitDone, "nothing left to do for shard 1 of 3: "+p.url+"/shards/shard-00001-of-00003 has its pairs")
	p.ends(p.shard("1", "--max-length", "99"))(exitUsage, "stale max_length")

	p.ends(p.join("--keep-shards", "--model", demo.ModelDir, "--data", "few.jsonl"))(exitDone, "joined 3 shards: 40 pairs of 40 rows in "+p.url+" (")
	if names := p.objects(); !slices.Contains(names, "shards/shard-00001-of-00003/manifest.json") || !slices.Contains(names, "manifest.json") {
		t.Fatalf("of cache and shards there is %v", names)
	}
	p.ends(p.join())(exitDone, "nothing left to do: "+p.url+" holds its 40 pairs")
	p.same()
	p.ends(p.shard("1"))(exitDone, "nothing left to do for shard 1 of 3: "+p.url+" has its pairs")
	p.same()
	p.ends(p.shard("1", "--max-length", "99"))(exitUsage, "a split pass makes a new cache and updates none")
	out, code = runs(t, p.dir, append(slices.Clone(p.args), "--out", p.url)...)
	p.ends(out, code)(exitDone, "5 of them from before")
}

// TestShardsInStoresCutShort ends shards and joins at chosen requests, as a kill would: what
// follows finds what they left, on machines that have nothing else.
func TestShardsInStoresCutShort(t *testing.T) {
	var mutex sync.Mutex
	var end func(*http.Request) bool
	var parts int // parts of the cache that were asked for
	storeServer(t, func(r *http.Request) bool {
		mutex.Lock()
		defer mutex.Unlock()
		if r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, ".arrow") {
			parts++
		}
		return end != nil && end(r)
	})
	cut := func(method, in string) {
		mutex.Lock()
		defer mutex.Unlock()
		end = func(r *http.Request) bool { return r.Method == method && strings.Contains(r.URL.Path, in) }
	}
	whole := func() {
		mutex.Lock()
		defer mutex.Unlock()
		end, parts = nil, 0
	}
	transferred := func(want int, doing string) {
		t.Helper()
		mutex.Lock()
		defer mutex.Unlock()
		if parts != want {
			t.Errorf("%s read %d parts, want %d", doing, parts, want)
		}
	}
	p := newSplitPass(t, "s3://bkt/split")
	p.ends(p.shard("0"))(exitDone, "")
	p.ends(p.shard("2"))(exitDone, "")
	cut(http.MethodPut, "shard-00001-of-00003/manifest.json")
	p.ends(p.shard("1"))(exitEnvironment, "s3://bkt/split/shards/shard-00001-of-00003/manifest.json")
	machine := t.TempDir()
	p.ends(p.shardOn(machine, "1"))(exitEnvironment, "s3://bkt/split/shards/shard-00001-of-00003/manifest.json")
	whole()
	p.ends(p.join())(exitFailed, "lacks some of its 3 shards; unfinished: 1")
	transferred(0, "a join that can't be")
	p.ends(p.shardOn(machine, "1"))(exitDone, "nothing left to do for shard 1 of 3") // but to push it
	p.ends(p.shard("1"))(exitDone, "nothing left to do")
	transferred(0, "a shard that ran twice")

	for _, at := range []struct{ method, in, url string }{
		{http.MethodPut, "/split/part-00003.arrow", "s3://bkt/split/part-00003.arrow"},
		{http.MethodPut, "/split/manifest.json", "s3://bkt/split/manifest.json"},
	} {
		cut(at.method, at.in)
		p.ends(p.join())(exitEnvironment, at.url)
		whole()
		p.ends(p.shard("1"))(exitDone, "nothing left to do for shard 1 of 3: s3://bkt/split/shards/")
		if names := p.objects(); !slices.Contains(names, "shards/shard-00002-of-00003/manifest.json") || slices.Contains(names, "manifest.json") {
			t.Fatalf("a join without %s leaves %v", at.in, names)
		}
	}
	cut(http.MethodDelete, "/shards/shard-00001-of-00003/part")
	p.ends(p.join())(exitEnvironment, "s3://bkt/split/shards/shard-00001-of-00003/part")
	whole()
	p.ends(p.shard("0"))(exitDone, "nothing left to do for shard 0 of 3: s3://bkt/split has its pairs")
	p.ends(p.join())(exitDone, "nothing left to do: s3://bkt/split holds its 40 pairs")
	transferred(0, "what is left to do of a join")
	p.same()
}

// TestDamagedShardsInStores: a shard whose bytes are not what its manifest says is named by the
// join, and made again when it runs again.
func TestDamagedShardsInStores(t *testing.T) {
	storeServer(t, nil)
	p := newSplitPass(t, "s3://bkt/split")
	for _, index := range []string{"0", "1", "2"} {
		p.ends(p.shard(index))(exitDone, "")
	}
	const part = "shards/shard-00001-of-00003/part-00004.arrow"
	data, err := os.ReadFile(filepath.Join(p.one, "part-00004.arrow"))
	if err != nil {
		t.Fatal(err)
	}
	write := func(data []byte) {
		t.Helper()
		b, err := store.Open(context.Background(), p.url)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		if err := b.WritePointer(context.Background(), part, data, store.Condition{}); err != nil {
			t.Fatal(err)
		}
	}
	write(data[:len(data)-1]) // another size: the shard itself sees it
	p.ends(p.shard("1"))(exitDone, "cached 16 pairs")
	data[len(data)/2] ^= 1
	write(data)
	p.ends(p.join())(exitFailed, "lacks some of its 3 shards; damaged: 1")
	p.ends(p.join())(exitFailed, "lacks some of its 3 shards; missing: 1")
	p.ends(p.shard("1"))(exitDone, "cached 16 pairs")
	p.ends(p.join())(exitDone, "joined 3 shards")
	p.same()
}
