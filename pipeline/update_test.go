package pipeline

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/dpo-pipe/dpo-pipe/datasets/refcache"
	"github.com/dpo-pipe/dpo-pipe/internal/lockfile"
)

// prefs makes rows of data out of words "id=chosen" or "id=chosen*weight", all on one prompt.
func prefs(words ...string) string {
	var b strings.Builder
	for _, word := range words {
		id, chosen, _ := strings.Cut(word, "=")
		chosen, weight, weighed := strings.Cut(chosen, "*")
		fmt.Fprintf(&b, `{"id": %q, "prompt": "q:", "chosen": %q, "rejected": " no"`, id, " "+chosen)
		if weighed {
			fmt.Fprintf(&b, `, "weight": %s`, weight)
		}
		b.WriteString("}\n")
	}
	return b.String()
}

// precomputed runs the reference over rows into out and returns the result and the
// number of batches.
func (w *world) precomputed(out, rows string, set func(*PrecomputeConfig)) (PrecomputeResult, int, error) {
	w.t.Helper()
	w.write("rows.jsonl", rows)
	cfg := w.precomputeConfig(w.path("rows.jsonl"))
	cfg.Out, cfg.PartPairs = w.path(out), 2
	if set != nil {
		set(&cfg)
	}
	w.rt.calls = 0
	result, err := Precompute(context.Background(), cfg, w.rt, nil)
	return result, w.rt.calls, err
}

// alone wants nothing in the world but what a pass was given and the caches.
func (w *world) alone(caches ...string) {
	w.t.Helper()
	want := map[string]bool{"model": true, "rows.jsonl": true}
	for _, name := range caches {
		want[name] = true
	}
	entries, err := os.ReadDir(w.dir)
	must(w.t, err)
	for _, e := range entries {
		if !want[e.Name()] {
			w.t.Errorf("%s is left", e.Name())
		}
	}
}

// The rows that changed data reuses, computes and drops, counted by hand. Whatever is done
// to the data, the cache has the bytes of a fresh pass: the fake backbone scores each
// sequence by itself, so that batches move no bit.
func TestUpdateIsAFreshPass(t *testing.T) {
	old := []string{"1=a", "2=b", "3=c", "4=d", "5=e"}
	for _, tc := range []struct {
		name  string
		old   []string
		rows  []string
		want  UpdateCounts
		limit [2]int64 // of the old and the new cache
	}{
		{name: "append", rows: []string{"1=a", "2=b", "3=c", "4=d", "5=e", "6=f", "7=g"}, want: UpdateCounts{5, 2, 0}},
		{name: "append one", rows: []string{"1=a", "2=b", "3=c", "4=d", "5=e", "6=f"}, want: UpdateCounts{5, 1, 0}},
		{name: "prepend", rows: []string{"0=z", "1=a", "2=b", "3=c", "4=d", "5=e"}, want: UpdateCounts{5, 1, 0}},
		{name: "prepend a part", rows: []string{"8=y", "9=z", "1=a", "2=b", "3=c", "4=d", "5=e"}, want: UpdateCounts{5, 2, 0}},
		{name: "in between", rows: []string{"1=a", "2=b", "3=c", "6=f", "4=d", "5=e"}, want: UpdateCounts{5, 1, 0}},
		{name: "remove the first", rows: old[1:], want: UpdateCounts{4, 0, 1}},
		{name: "remove a part", rows: []string{"1=a", "2=b", "5=e"}, want: UpdateCounts{3, 0, 2}},
		{name: "remove the last", rows: old[:4], want: UpdateCounts{4, 0, 1}},
		{name: "other content of an id", rows: []string{"1=a", "2=b", "3=x", "4=d", "5=e"}, want: UpdateCounts{4, 1, 1}},
		{name: "other id of a content", rows: []string{"1=a", "2=b", "3=c", "4=d", "9=e"}, want: UpdateCounts{4, 1, 1}},
		{name: "ids change places", rows: []string{"2=a", "1=b", "3=c", "4=d", "5=e"}, want: UpdateCounts{3, 2, 2}},
		{name: "reorder", rows: []string{"5=e", "3=c", "1=a", "4=d", "2=b"}, want: UpdateCounts{5, 0, 0}},
		{name: "parts change places", rows: []string{"3=c", "4=d", "1=a", "2=b", "5=e"}, want: UpdateCounts{5, 0, 0}},
		{name: "more of the same", rows: append(old[:5:5], "2=b", "2=b", "1=a"), want: UpdateCounts{8, 0, 0}},
		{name: "less of the same", old: []string{"1=a", "1=a", "2=b"}, rows: []string{"1=a", "2=b"}, want: UpdateCounts{2, 0, 0}},
		{name: "all of the same leave", old: []string{"1=a", "1=a", "2=b"}, rows: []string{"2=b"}, want: UpdateCounts{1, 0, 2}},
		{name: "other weight", rows: []string{"1=a", "2=b*0.5", "3=c", "4=d*2", "5=e"}, want: UpdateCounts{5, 0, 0}},
		{name: "weight goes", old: []string{"1=a*3", "2=b"}, rows: []string{"1=a", "2=b"}, want: UpdateCounts{2, 0, 0}},
		{name: "all is new", rows: []string{"6=f", "7=g"}, want: UpdateCounts{0, 2, 5}},
		{name: "limit grows", rows: old, limit: [2]int64{3, 4}, want: UpdateCounts{3, 1, 0}},
		{name: "limit falls", rows: old, limit: [2]int64{4, 2}, want: UpdateCounts{2, 0, 2}},
		{name: "limit goes, rows come", rows: append(old[:5:5], "6=f"), limit: [2]int64{4, 0}, want: UpdateCounts{4, 2, 0}},
		{name: "limit past the end", rows: old, limit: [2]int64{0, 9}, want: UpdateCounts{5, 0, 0}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			if tc.old == nil {
				tc.old = old
			}
			_, _, err := w.precomputed("cache", prefs(tc.old...), func(c *PrecomputeConfig) { c.Limit = tc.limit[0] })
			must(t, err)
			prune := func(c *PrecomputeConfig) { c.Prune, c.Limit = true, tc.limit[1] }
			rows := prefs(tc.rows...)
			result, calls, err := w.precomputed("cache", rows, prune)
			must(t, err)
			if result.Update == nil || *result.Update != tc.want {
				t.Errorf("the update is %+v, want %+v", result.Update, tc.want)
			}
			if (calls > 0) != (tc.want.Computed > 0) {
				t.Errorf("%d batches were run for %d pairs", calls, tc.want.Computed)
			}
			fresh, _, err := w.precomputed("fresh", rows, prune)
			must(t, err)
			if fresh.Update != nil {
				t.Errorf("a fresh pass is an update: %+v", fresh.Update)
			}
			sameTree(t, tree(t, w.path("cache")), tree(t, w.path("fresh")))
			w.alone("cache", "fresh")
		})
	}
}

// TestUpdateProperty edits random data at random.
func TestUpdateProperty(t *testing.T) {
	w := newWorld(t)
	word := rapid.Custom(func(t *rapid.T) string {
		word := rapid.StringMatching(`[1-6]=[ab]{1,3}`).Draw(t, "pair")
		if rapid.Bool().Draw(t, "weighed") {
			word += rapid.StringMatching(`\*[0-2]`).Draw(t, "weight")
		}
		return word
	})
	rapid.Check(t, func(t *rapid.T) {
		for _, name := range []string{"cache", "fresh"} {
			must(w.t, os.RemoveAll(w.path(name)))
		}
		part := rapid.IntRange(2, 4).Draw(t, "pairs of a part")
		set := func(c *PrecomputeConfig) { c.Prune, c.PartPairs = true, part }
		words := rapid.SliceOfN(word, 1, 10).Draw(t, "data")
		_, _, err := w.precomputed("cache", prefs(words...), set)
		must(w.t, err)
		for range rapid.IntRange(1, 3).Draw(t, "edits") {
			from := rapid.IntRange(0, len(words)).Draw(t, "from")
			to := rapid.IntRange(from, min(len(words), from+3)).Draw(t, "to")
			words = slices.Replace(words, from, to, rapid.SliceOfN(word, 0, 3).Draw(t, "by")...)
		}
		words = append(words, "9=c") // never empty
		for _, out := range []string{"cache", "fresh"} {
			_, _, err := w.precomputed(out, prefs(words...), set)
			must(w.t, err)
		}
		sameTree(w.t, tree(w.t, w.path("cache")), tree(w.t, w.path("fresh")))
		w.alone("cache", "fresh")
		if w.t.Failed() {
			t.Fatalf("data %q", words)
		}
	})
}

// What the cache holds is not dropped unless asked for, and nothing is run to find out.
func TestUpdateDropsNothingUnasked(t *testing.T) {
	w := newWorld(t)
	_, _, err := w.precomputed("cache", prefs("1=a", "2=b", "3=c"), nil)
	must(t, err)
	want := tree(t, w.path("cache"))
	for _, rows := range [][]string{{"1=a", "3=c", "4=d"}, {"1=a", "2=x", "3=c"}} {
		_, calls, err := w.precomputed("cache", prefs(rows...), nil)
		prune, ok := errors.AsType[*PruneError](err)
		if !ok || prune.Missing != 1 || prune.Cached != 3 || prune.Cache != w.path("cache") || calls != 0 {
			t.Errorf("%v: error is %v after %d batches, want a PruneError of 1 of 3 pairs after none", rows, err, calls)
		}
		sameTree(t, tree(t, w.path("cache")), want)
		w.alone("cache")
	}
}

// Anything but the data must be the same; the key that is not is named, though the data
// changed too.
func TestUpdateKeepsTheIdentity(t *testing.T) {
	w := newWorld(t)
	_, _, err := w.precomputed("cache", prefs("1=a", "2=b"), nil)
	must(t, err)
	want := tree(t, w.path("cache"))
	for key, set := range map[string]func(*PrecomputeConfig){
		"max_length":   func(c *PrecomputeConfig) { c.Encode.MaxLength = 99 },
		"features":     func(c *PrecomputeConfig) { c.Features = refcache.F32 },
		"part_pairs":   func(c *PrecomputeConfig) { c.PartPairs = 3 },
		"batch_tokens": func(c *PrecomputeConfig) { c.BatchTokens = 41 },
		"columns":      func(c *PrecomputeConfig) { c.Reading.Columns.Weight = "w" },
	} {
		_, _, err := w.precomputed("cache", prefs("1=a", "2=b", "3=c"), set)
		if stale, ok := errors.AsType[*refcache.StaleError](err); !ok || stale.Key != key {
			t.Errorf("%s: error is %v", key, err)
		}
		cfg := w.precomputeConfig(w.path("rows.jsonl"))
		set(&cfg)
		if e, err := Estimate(context.Background(), cfg, w.rt, nil); err != nil || e.Update != nil || e.Counts.Kept != 3 {
			t.Errorf("%s: a dry run says %+v, %v, want the cost of 3 pairs", key, e, err)
		}
		sameTree(t, tree(t, w.path("cache")), want)
	}
	w.alone("cache")
}

// An update that dies at any batch leaves the old cache whole; run again, it goes on to the
// bytes of one that did not die. Run for other data instead, it begins again.
func TestUpdateResumes(t *testing.T) {
	w := newWorld(t)
	var letters []string
	for i := range 14 {
		letters = append(letters, fmt.Sprintf("%d=%s", i, strings.Repeat("a", 1+i%5)))
	}
	old, rows := prefs(letters[3:8]...), prefs(letters...)
	_, _, err := w.precomputed("fresh", rows, nil)
	must(t, err)
	want := tree(t, w.path("fresh"))
	_, _, err = w.precomputed("old", old, nil)
	must(t, err)
	whole := tree(t, w.path("old"))
	update := func() (PrecomputeResult, int, error) { return w.precomputed("cache", rows, nil) }
	begin := func() {
		must(t, os.RemoveAll(w.path("cache")))
		_, _, err := w.precomputed("cache", old, nil)
		must(t, err)
	}
	begin()
	_, calls, err := update()
	must(t, err)
	if calls < 5 {
		t.Fatalf("the update has %d batches, too few for this test", calls)
	}
	for kill := 1; kill <= calls; kill++ {
		begin()
		w.rt.stop = func(call int) error {
			if call == kill {
				return errKilled
			}
			return nil
		}
		if _, _, err := update(); !errors.Is(err, errKilled) {
			t.Fatalf("killed at batch %d: error is %v", kill, err)
		}
		w.rt.stop = nil
		sameTree(t, tree(t, w.path("cache")), whole)
		if kill%2 == 0 {
			_, _, err := w.precomputed("cache", prefs(letters[3:9]...), nil)
			must(t, err)
			begin()
		}
		result, again, err := update()
		must(t, err)
		if kill == calls && again >= calls {
			t.Errorf("%d batches were run again, want those behind the last whole part", again)
		}
		if *result.Update != (UpdateCounts{5, 9, 0}) {
			t.Errorf("the update is %+v", *result.Update)
		}
		sameTree(t, tree(t, w.path("cache")), want)
		w.alone("cache", "fresh", "old")
	}
}

// A finished cache whose update was given up is tidied by the pass that has nothing to do.
func TestUpdateGivenUp(t *testing.T) {
	w := newWorld(t)
	_, _, err := w.precomputed("cache", prefs("1=a"), nil)
	must(t, err)
	w.rt.stop = func(int) error { return errKilled }
	if _, _, err := w.precomputed("cache", prefs("1=a", "2=b"), nil); !errors.Is(err, errKilled) {
		t.Fatal(err)
	}
	w.rt.stop = nil
	if !refcache.IsCache(refcache.Successor(w.path("cache"))) {
		t.Fatal("no successor was begun")
	}
	result, calls, err := w.precomputed("cache", prefs("1=a"), nil)
	must(t, err)
	if calls != 0 || result.Update != nil {
		t.Errorf("%d batches were run, update %+v", calls, result.Update)
	}
	w.alone("cache")
}

func TestUpdateRefusesUnusableData(t *testing.T) {
	w := newWorld(t)
	_, _, err := w.precomputed("cache", prefs("1=a", "2=b"), nil)
	must(t, err)
	want := tree(t, w.path("cache"))
	for name, rows := range map[string]string{"no rows": "\n", "bad rows": prefs("1=a", "2=b") + prefs("3=no")} {
		_, calls, err := w.precomputed("cache", rows, func(c *PrecomputeConfig) { c.Prune = true })
		_, none := errors.AsType[*NoRowsError](err)
		_, bad := errors.AsType[*BadDataError](err)
		if !none && !bad || calls != 0 {
			t.Errorf("%s: error is %v after %d batches", name, err, calls)
		}
		sameTree(t, tree(t, w.path("cache")), want)
		w.alone("cache")
	}
}

// What is damaged must not be copied under a new checksum.
func TestUpdateRefusesADamagedCache(t *testing.T) {
	w := newWorld(t)
	_, _, err := w.precomputed("cache", prefs("1=a", "2=b"), nil)
	must(t, err)
	path := filepath.Join(w.path("cache"), "part-00000.arrow")
	data, err := os.ReadFile(path)
	must(t, err)
	data[len(data)/2] ^= 1
	must(t, os.WriteFile(path, data, 0o666))
	if _, calls, err := w.precomputed("cache", prefs("1=a", "2=b", "3=c"), nil); !errors.Is(err, refcache.ErrCorrupt) || calls != 0 {
		t.Errorf("error is %v after %d batches, want ErrCorrupt after none", err, calls)
	}
	w.alone("cache")
}

func TestOneUpdateAtATime(t *testing.T) {
	w := newWorld(t)
	_, _, err := w.precomputed("cache", prefs("1=a"), nil)
	must(t, err)
	lock, err := lockfile.Acquire(w.path("cache"))
	must(t, err)
	if _, err := lockfile.Acquire(w.path("cache")); err == nil {
		t.Skip("this system has no locks")
	}
	_, _, err = w.precomputed("cache", prefs("1=a", "2=b"), nil)
	if _, ok := errors.AsType[*LockedError](err); !ok {
		t.Errorf("error is %v, want a LockedError", err)
	}
	must(t, lock.Release())
}

// A cache under a link is replaced where it lies.
func TestUpdateBehindALink(t *testing.T) {
	w := newWorld(t)
	must(t, os.Mkdir(w.path("disk"), 0o777))
	must(t, os.Symlink(w.path("disk/real"), w.path("cache")))
	_, _, err := w.precomputed("disk/real", prefs("1=a"), nil)
	must(t, err)
	_, _, err = w.precomputed("cache", prefs("1=a", "2=b"), nil)
	must(t, err)
	if at, err := os.Readlink(w.path("cache")); err != nil || at != w.path("disk/real") {
		t.Errorf("the link leads to %q, %v", at, err)
	}
	entries, err := os.ReadDir(w.path("disk"))
	if err != nil || len(entries) != 1 {
		t.Errorf("beside the cache are %v, %v", entries, err)
	}
	m, err := refcache.ReadManifest(w.path("disk/real"))
	if must(t, err); m.Counts.Kept != 2 {
		t.Errorf("the cache holds %d pairs, want 2", m.Counts.Kept)
	}
}

// A dry run counts as the update does, runs nothing and writes nothing; it is no refusal.
func TestEstimateOfAnUpdate(t *testing.T) {
	w := newWorld(t)
	_, _, err := w.precomputed("cache", prefs("1=a", "2=b", "3=c"), nil)
	must(t, err)
	want := tree(t, w.path("cache"))
	rows := prefs("1=a", "4=dd", "3=c", "5=eee")
	w.write("rows.jsonl", rows)
	cfg := w.precomputeConfig(w.path("rows.jsonl"))
	cfg.PartPairs = 2
	w.rt.calls = 0
	e, err := Estimate(context.Background(), cfg, w.rt, nil)
	must(t, err)
	if e.Update == nil || *e.Update != (UpdateCounts{2, 2, 1}) || w.rt.calls != 0 || e.Counts.Kept != 4 || e.Seconds != 0 {
		t.Errorf("estimated %+v, update %+v, %d batches", e, e.Update, w.rt.calls)
	}
	sameTree(t, tree(t, w.path("cache")), want)
	w.alone("cache")
	result, _, err := w.precomputed("cache", rows, func(c *PrecomputeConfig) { c.Prune = true })
	must(t, err)
	if e.Tokens != result.PaddedTokens || *e.Update != *result.Update {
		t.Errorf("estimated %d tokens and %+v, the update had %d and %+v", e.Tokens, e.Update, result.PaddedTokens, result.Update)
	}
}

// Pairs that are reused are done from the start, so that what is left is time; an update
// that goes on begins where it was left.
func TestUpdateProgress(t *testing.T) {
	w := newWorld(t)
	_, _, err := w.precomputed("cache", prefs("1=a", "2=b", "3=c"), nil)
	must(t, err)
	w.write("rows.jsonl", prefs("1=a", "2=b", "3=c", "4=d", "5=e", "6=f"))
	cfg := w.precomputeConfig(w.path("rows.jsonl"))
	cfg.PartPairs = 2
	update := func() (first, last Progress, err error) {
		_, err = Precompute(context.Background(), cfg, w.rt, func(p Progress) {
			if p.Stage == "precompute-ref" {
				if last = p; first.Stage == "" {
					first = p
				}
			}
		})
		return first, last, err
	}
	// The second part, of pairs 3 and 4, is the last that is whole.
	w.rt.stop = func(int) error {
		if refcache.IsCache(refcache.Successor(w.path("cache"))) {
			if m, err := refcache.ReadManifest(refcache.Successor(w.path("cache"))); err != nil || m.Counts.Kept == 4 {
				return errKilled
			}
		}
		return nil
	}
	first, last, err := update()
	if !errors.Is(err, errKilled) || first.Done != 3 || first.Total != 6 || last.Done != 4 || last.Total != 6 || last.Note != "3 reused" {
		t.Errorf("progress begins with %+v and ends with %+v (%v), want 3 and 4 of 6 pairs, 3 reused", first, last, err)
	}
	w.rt.stop = nil
	first, last, err = update()
	if must(t, err); first.Done < 4 || last.Done != 6 || last.Total != 6 || last.Fresh != 2 {
		t.Errorf("resumed, progress begins with %+v and ends with %+v, want 4 and 6 of 6 pairs", first, last)
	}
}

// A run of the old cache does not go on with the new one.
func TestTrainDoesNotResumeOnAnUpdatedCache(t *testing.T) {
	w := newWorld(t)
	words := strings.Fields("1=a 2=b 3=c 4=d 5=e 6=f 7=g 8=h")
	_, _, err := w.precomputed("cache", prefs(words...), nil)
	must(t, err)
	cfg := w.trainConfig(w.path("cache"))
	cfg.EvalFrac = 0
	_, err = Train(context.Background(), cfg, gonumEngine, nil)
	must(t, err)
	_, _, err = w.precomputed("cache", prefs(append(words, "9=i")...), nil)
	must(t, err)
	cfg.Resume = true
	_, err = Train(context.Background(), cfg, gonumEngine, nil)
	if stale, ok := errors.AsType[*refcache.StaleError](err); !ok || stale.Key != "data" || stale.Have == stale.Want {
		t.Errorf("resumed: error is %v, want stale data", err)
	}
	cfg.Out, cfg.Resume = w.path("run2"), false
	_, err = Train(context.Background(), cfg, gonumEngine, nil)
	must(t, err)
}

// A training whose cache is replaced under it ends in the bytes of one that was left alone:
// its files are open. Its report does not describe the pairs of the new cache.
func TestTrainWhileItsCacheIsReplaced(t *testing.T) {
	w := newWorld(t)
	words := strings.Fields("1=a 2=b 3=c 4=d 5=e 6=f 7=g 8=h")
	_, _, err := w.precomputed("cache", prefs(words...), nil)
	must(t, err)
	train := func(run string, at func()) string {
		cfg := w.trainConfig(w.path("cache"))
		cfg.Out, cfg.EvalFrac, cfg.LogEvery = w.path(run), 0, 1
		_, err := Train(context.Background(), cfg, gonumEngine, func(p Progress) {
			if p.Stage == "train" && p.Done == 1 && at != nil {
				at()
				at = nil
			}
		})
		must(t, err)
		if run != "alone" && at != nil {
			t.Fatal("the cache was not replaced")
		}
		return tree(t, filepath.Join(w.path(run), lastTarget(t, w.path(run))))["adapter_model.safetensors"]
	}
	want := train("alone", nil)
	if _, text := readReport(t, w.path("alone")); !strings.Contains(text, "pairs kept") {
		t.Error("the report of a run on its cache lacks the pairs")
	}
	got := train("replaced", func() {
		_, _, err := w.precomputed("cache", prefs("8=y", "7=z", "1=a"), func(c *PrecomputeConfig) { c.Prune = true })
		must(t, err)
	})
	if got != want || want == "" {
		t.Errorf("the adapter is another one: %d bytes, want %d", len(got), len(want))
	}
	if _, text := readReport(t, w.path("replaced")); strings.Contains(text, "pairs kept") {
		t.Error("the report describes pairs of a cache that the run was not made from")
	}
}

// lastTarget is where the link to the last checkpoint leads.
func lastTarget(t *testing.T, run string) string {
	t.Helper()
	target, err := os.Readlink(filepath.Join(run, lastName))
	must(t, err)
	return target
}
