package pipeline

import (
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

func TestLayoutCoversEveryTokenOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const d = 3
		limit := rapid.IntRange(1, 40).Draw(t, "limit")
		n := rapid.IntRange(1, 12).Draw(t, "pairs")
		pairs := make([]refcache.Row, n)
		longest := 0
		for i := range pairs {
			nc, nr := rapid.IntRange(1, 20).Draw(t, "nc"), rapid.IntRange(1, 20).Draw(t, "nr")
			pairs[i] = cacheRow(i, nc, nr, d)
			longest = max(longest, nc+nr)
		}
		micros, whole := layout(pairs, limit)
		if whole != (longest <= limit) {
			t.Fatalf("whole is %v; the longest pair has %d tokens, the limit is %d", whole, longest, limit)
		}
		seen := map[int32]int{}
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
				ids := completion(&pairs[s.pair], s.chosen)
				if m.rows.Targets[s.at] != ids[s.from] {
					t.Fatalf("span %+v starts at token %d, want %d", s, m.rows.Targets[s.at], ids[s.from])
				}
			}
		}
		for i := range pairs {
			for _, ids := range [][]int32{pairs[i].Chosen, pairs[i].Rejected} {
				for _, id := range ids {
					if seen[id] != 1 {
						t.Fatalf("token %d is scored %d times", id, seen[id])
					}
				}
			}
		}
	})
}
