package pipeline

import (
	"github.com/dpo-pipe/dpo-pipe/datasets/refcache"
	"github.com/dpo-pipe/dpo-pipe/models"
)

// microBatch is what the head scores at once: completions end to end, without
// padding.
type microBatch struct {
	rows  models.Rows
	spans []span
}

// span places tokens [from,to) of one completion of a pair at rows [at,at+to-from).
type span struct {
	pair     int // index in the optimizer batch
	chosen   bool
	from, to int
	at       int
}

// layout decides which tokens go into which micro-batch: pairs in order, whole
// where one fits into limit tokens, else cut. whole reports that none was cut.
func layout(pairs []refcache.Row, limit int) (micros [][]span, whole bool) {
	var current []span
	used := 0
	flush := func() {
		if len(current) > 0 {
			micros = append(micros, current)
		}
		current, used = nil, 0
	}
	whole = true
	for i := range pairs {
		n := len(pairs[i].Chosen) + len(pairs[i].Rejected)
		if used+n > limit {
			flush()
		}
		whole = whole && n <= limit
		for _, chosen := range []bool{true, false} {
			tokens := len(completion(&pairs[i], chosen))
			for from := 0; from < tokens; {
				if used == limit {
					flush()
				}
				to := min(tokens, from+limit-used)
				current = append(current, span{pair: i, chosen: chosen, from: from, to: to, at: used})
				used += to - from
				from = to
			}
		}
	}
	flush()
	return micros, whole
}

// fill copies the rows of spans from the pairs into m, reusing its memory.
func (m *microBatch) fill(pairs []refcache.Row, spans []span, d int) {
	m.spans = spans
	m.rows.Hidden = m.rows.Hidden[:0]
	m.rows.Targets = m.rows.Targets[:0]
	m.rows.RefLogps = m.rows.RefLogps[:0]
	for _, s := range spans {
		ids, logps, features := completionRow(&pairs[s.pair], s.chosen)
		m.rows.Targets = append(m.rows.Targets, ids[s.from:s.to]...)
		m.rows.RefLogps = append(m.rows.RefLogps, logps[s.from:s.to]...)
		m.rows.Hidden = append(m.rows.Hidden, features[s.from*d:s.to*d]...)
	}
	m.rows.N = len(m.rows.Targets)
}

func completion(r *refcache.Row, chosen bool) []int32 {
	if chosen {
		return r.Chosen
	}
	return r.Rejected
}

func completionRow(r *refcache.Row, chosen bool) (ids []int32, logps, features []float32) {
	if chosen {
		return r.Chosen, r.ChosenRefLogps, r.ChosenFeatures
	}
	return r.Rejected, r.RejectedRefLogps, r.RejectedFeatures
}

// microTokenBytes bounds the softmax of one micro-batch, float32 [n,V].
const microTokenBytes = 128 << 20

// microTokens is the default size of a micro-batch: enough rows to keep a matrix
// product busy, no more than microTokenBytes of softmax.
func microTokens(v int) int {
	return max(16, min(2048, microTokenBytes/(4*v)))
}
