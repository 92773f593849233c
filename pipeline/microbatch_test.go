package pipeline

import (
	"math"
	"reflect"
	"testing"

	"github.com/dpo-pipe/dpo-pipe/datasets/refcache"
	"pgregory.net/rapid"
)

// cacheRow makes a pair with nc and nr completion tokens whose ids and features
// tell where they belong.
func cacheRow(pair, nc, nr, d int) refcache.Row {
	side := func(n, base int) (ids []int32, logps, features []float32) {
		for t := range n {
			ids = append(ids, int32(base+t))
			logps = append(logps, float32(-base-t))
			for k := range d {
				features = append(features, float32((base+t)*d+k))
			}
		}
		return ids, logps, features
	}
	var r refcache.Row
	r.Prompt = []int32{int32(pair)}
	r.Chosen, r.ChosenRefLogps, r.ChosenFeatures = side(nc, 1000*pair)
	r.Rejected, r.RejectedRefLogps, r.RejectedFeatures = side(nr, 1000*pair+500)
	return r
}

// share makes the first n tokens of the rejected completion those of the chosen one.
func share(r *refcache.Row, n, d int) {
	copy(r.Rejected[:n], r.Chosen)
	copy(r.RejectedRefLogps[:n], r.ChosenRefLogps)
	copy(r.RejectedFeatures[:n*d], r.ChosenFeatures)
}

func TestSharedRows(t *testing.T) {
	const d = 2
	ulp := func(x *float32) { *x = math.Nextafter32(*x, 1000) }
	for name, c := range map[string]struct {
		nc, nr, equal int
		spoil         func(r *refcache.Row)
		want          int
	}{
		"nothing":                        {3, 4, 0, nil, 0},
		"the first token":                {3, 4, 1, nil, 1},
		"some tokens":                    {3, 4, 2, nil, 2},
		"all of the chosen completion":   {3, 4, 3, nil, 3},
		"all of the rejected completion": {5, 4, 4, nil, 4},
		"another id":                     {5, 4, 4, func(r *refcache.Row) { r.Rejected[2]++ }, 2},
		"a feature's last bit":           {5, 4, 4, func(r *refcache.Row) { ulp(&r.RejectedFeatures[1*d+1]) }, 1},
		"a feature behind the shared":    {5, 4, 3, func(r *refcache.Row) { ulp(&r.RejectedFeatures[3*d]) }, 3},
		"a log-prob's last bit":          {5, 4, 4, func(r *refcache.Row) { ulp(&r.RejectedRefLogps[3]) }, 3},
		"0 and -0": {5, 4, 4, func(r *refcache.Row) {
			r.ChosenFeatures[2*d], r.RejectedFeatures[2*d] = 0, float32(math.Copysign(0, -1))
		}, 2},
	} {
		r := cacheRow(1, c.nc, c.nr, d)
		share(&r, c.equal, d)
		if c.spoil != nil {
			c.spoil(&r)
		}
		if got := sharedRows(&r, d); got != c.want {
			t.Errorf("%s: %d tokens are shared, want %d", name, got, c.want)
		}
	}
}

func TestLayout(t *testing.T) {
	both := func(pair, from, to, at int) span { return span{pair, true, true, from, to, at} }
	chosen := func(pair, from, to, at int) span { return span{pair, true, false, from, to, at} }
	rejected := func(pair, from, to, at int) span { return span{pair, false, true, from, to, at} }
	for name, c := range map[string]struct {
		pairs []pairSize
		limit int
		want  [][]span
		whole bool
	}{
		"nothing shared":               {[]pairSize{{2, 3, 0}}, 5, [][]span{{chosen(0, 0, 2, 0), rejected(0, 0, 3, 2)}}, true},
		"some shared":                  {[]pairSize{{4, 5, 2}}, 7, [][]span{{both(0, 0, 2, 0), chosen(0, 2, 4, 2), rejected(0, 2, 5, 4)}}, true},
		"all of the chosen":            {[]pairSize{{2, 5, 2}}, 5, [][]span{{both(0, 0, 2, 0), rejected(0, 2, 5, 2)}}, true},
		"all of the rejected":          {[]pairSize{{5, 2, 2}}, 5, [][]span{{both(0, 0, 2, 0), chosen(0, 2, 5, 2)}}, true},
		"all of both":                  {[]pairSize{{2, 2, 2}}, 2, [][]span{{both(0, 0, 2, 0)}}, true},
		"distinct rows fill the limit": {[]pairSize{{3, 3, 2}, {2, 2, 1}}, 7, [][]span{{both(0, 0, 2, 0), chosen(0, 2, 3, 2), rejected(0, 2, 3, 3), both(1, 0, 1, 4), chosen(1, 1, 2, 5), rejected(1, 1, 2, 6)}}, true},
		"distinct rows pass the limit": {[]pairSize{{3, 3, 2}, {2, 2, 1}}, 6, [][]span{{both(0, 0, 2, 0), chosen(0, 2, 3, 2), rejected(0, 2, 3, 3)}, {both(1, 0, 1, 0), chosen(1, 1, 2, 1), rejected(1, 1, 2, 2)}}, true},
		"cut in what is shared":        {[]pairSize{{6, 6, 5}}, 3, [][]span{{both(0, 0, 3, 0)}, {both(0, 3, 5, 0), chosen(0, 5, 6, 2)}, {rejected(0, 5, 6, 0)}}, false},
		"cut behind what is shared":    {[]pairSize{{3, 4, 2}}, 2, [][]span{{both(0, 0, 2, 0)}, {chosen(0, 2, 3, 0), rejected(0, 2, 3, 1)}, {rejected(0, 3, 4, 0)}}, false},
		"one token at once":            {[]pairSize{{2, 2, 1}}, 1, [][]span{{both(0, 0, 1, 0)}, {chosen(0, 1, 2, 0)}, {rejected(0, 1, 2, 0)}}, false},
	} {
		got, whole := layout(c.pairs, c.limit)
		if !reflect.DeepEqual(got, c.want) || whole != c.whole {
			t.Errorf("%s: %+v, whole %v, want %+v, whole %v", name, got, whole, c.want, c.whole)
		}
	}
}

func TestLayoutCoversEveryTokenOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const d = 3
		limit := rapid.IntRange(1, 40).Draw(t, "limit")
		n := rapid.IntRange(1, 12).Draw(t, "pairs")
		pairs := make([]refcache.Row, n)
		longest := 0
		for i := range pairs {
			nc, nr := rapid.IntRange(1, 20).Draw(t, "nc"), rapid.IntRange(1, 20).Draw(t, "nr")
			common := rapid.IntRange(0, min(nc, nr)).Draw(t, "common")
			pairs[i] = cacheRow(i, nc, nr, d)
			share(&pairs[i], common, d)
			longest = max(longest, nc+nr-common)
		}
		micros, whole := layout(pairSizes(pairs, d), limit)
		if whole != (longest <= limit) {
			t.Fatalf("whole is %v; the longest pair has %d rows, the limit is %d", whole, longest, limit)
		}
		seen := map[int32]int{}
		type place struct {
			pair, token int
			chosen      bool
		}
		placed := map[place]bool{}
		home := map[int]int{}
		for i, spans := range micros {
			var m microBatch
			m.fill(pairs, spans, d)
			if m.rows.N == 0 || m.rows.N > limit {
				t.Fatalf("micro-batch %d has %d rows, the limit is %d", i, m.rows.N, limit)
			}
			for row, id := range m.rows.Targets {
				seen[id]++
				if m.rows.RefLogps[row] != float32(-id) || m.rows.Hidden[row*d+2] != float32(int(id)*d+2) {
					t.Fatalf("micro-batch %d row %d: token %d has another token's values", i, row, id)
				}
			}
			for _, s := range spans {
				if at, ok := home[s.pair]; ok && at != i && whole {
					t.Fatalf("pair %d is in micro-batches %d and %d", s.pair, at, i)
				}
				home[s.pair] = i
				for _, chosen := range []bool{true, false} {
					if chosen && !s.chosen || !chosen && !s.rejected {
						continue
					}
					ids := completion(&pairs[s.pair], chosen)
					for k := s.from; k < s.to; k++ {
						placed[place{s.pair, k, chosen}] = true
						if at := s.at + k - s.from; m.rows.Targets[at] != ids[k] {
							t.Fatalf("span %+v has token %d in row %d, want %d", s, m.rows.Targets[at], at, ids[k])
						}
					}
				}
			}
		}
		for i := range pairs {
			for _, chosen := range []bool{true, false} {
				for k, id := range completion(&pairs[i], chosen) {
					if seen[id] != 1 || !placed[place{i, k, chosen}] {
						t.Fatalf("token %d is scored %d times; its completion gets it: %v", id, seen[id], placed[place{i, k, chosen}])
					}
				}
			}
		}
	})
}
