package pipeline

import (
	"math"
	"slices"

	"github.com/dpo-pipe/dpo-pipe/datasets/refcache"
	"github.com/dpo-pipe/dpo-pipe/models"
)

// microBatch is what the head scores at once: completions end to end, without
// padding, and once what those of a pair have in common.
type microBatch struct {
	rows  models.Rows
	spans []span
}

// span places tokens [from,to) of a pair's completion at rows [at,at+to-from). What chosen
// and rejected have in common is one span of both.
type span struct {
	pair             int // index in the optimizer batch
	chosen, rejected bool
	from, to         int
	at               int
}

// pairSize is how many tokens the completions of a pair have. The first shared ones are the
// same rows: one is enough for both.
type pairSize struct{ chosen, rejected, shared int }

// rows is how many rows score the pair.
func (p pairSize) rows() int { return p.chosen + p.rejected - p.shared }

// spans lists the tokens of a pair, not yet placed: those of both, then of each alone.
func (p pairSize) spans(pair int) [3]span {
	return [3]span{
		{pair: pair, chosen: true, rejected: true, to: p.shared},
		{pair: pair, chosen: true, from: p.shared, to: p.chosen},
		{pair: pair, rejected: true, from: p.shared, to: p.rejected},
	}
}

// pairSizes measures pairs with features of width d.
func pairSizes(pairs []refcache.Row, d int) []pairSize {
	out := make([]pairSize, len(pairs))
	for i := range pairs {
		r := &pairs[i]
		out[i] = pairSize{chosen: len(r.Chosen), rejected: len(r.Rejected), shared: sharedRows(r, d)}
	}
	return out
}

// sharedRows is how many tokens chosen and rejected begin with that are the same to every
// head: id, features and reference log-prob, bit for bit. Behind one prompt equal ids have
// equal features, but not always to the last bit where a reference pass ran them twice.
func sharedRows(r *refcache.Row, d int) int {
	n := shared(r.Chosen, r.Rejected)
	for t := range n {
		lo, hi := t*d, (t+1)*d
		if !sameBits(r.ChosenRefLogps[t:t+1], r.RejectedRefLogps[t:t+1]) || !sameBits(r.ChosenFeatures[lo:hi], r.RejectedFeatures[lo:hi]) {
			return t
		}
	}
	return n
}

// sameBits tells 0 from -0, which == does not.
func sameBits(a, b []float32) bool {
	return slices.EqualFunc(a, b, func(x, y float32) bool { return math.Float32bits(x) == math.Float32bits(y) })
}

// layout decides which tokens go into which micro-batch: pairs in order, whole
// where one fits into limit rows, else cut. whole reports that none was cut.
func layout(pairs []pairSize, limit int) (micros [][]span, whole bool) {
	var current []span
	used := 0
	flush := func() {
		if len(current) > 0 {
			micros = append(micros, current)
		}
		current, used = nil, 0
	}
	whole = true
	for i, p := range pairs {
		n := p.rows()
		if used+n > limit {
			flush()
		}
		whole = whole && n <= limit
		for _, rest := range p.spans(i) {
			for rest.from < rest.to {
				if used == limit {
					flush()
				}
				s := rest
				s.to, s.at = min(rest.to, rest.from+limit-used), used
				current = append(current, s)
				used += s.to - s.from
				rest.from = s.to
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
