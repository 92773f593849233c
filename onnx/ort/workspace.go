//go:build cgo

package ort

import (
	"github.com/dpo-pipe/dpo-pipe/models"
	"github.com/dpo-pipe/dpo-pipe/onnx"
)

// workspace is the memory of one run of a backbone. It is used again and again; there are
// as many as runs that went on at once.
type workspace struct {
	hidden floats // [B,T,D]
	// past and present hold for each cache port [B,Heads,P,HeadDim] and [B,Heads,P+T,HeadDim].
	past, present [][]byte
}

func (b *Backbone) workspace() *workspace {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n := len(b.idle); n > 0 {
		w := b.idle[n-1]
		b.idle = b.idle[:n-1]
		return w
	}
	return &workspace{hidden: floats{dtype: b.output.DType}}
}

func (b *Backbone) release(w *workspace) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.idle = append(b.idle, w)
}

// gather lays the pasts of the runs side by side, each ending where the longest ends. What
// is in front of a shorter one is masked, and zero: a weight of 0 does not undo NaN.
func (w *workspace) gather(ports []onnx.CachePort, b *batch, runs []*models.Run) [][]byte {
	w.past = grow(w.past, len(ports))
	for i, c := range ports {
		token := c.VectorBytes()
		w.past[i] = grow(w.past[i], b.rows*c.Heads*b.past*token)
		rest := w.past[i]
		for row, r := range runs {
			for head := range c.Heads {
				pad := (b.past - b.pasts[row]) * token
				clear(rest[:pad])
				rest = rest[pad:]
				for _, p := range r.Past {
					size := p.Tokens * token
					copy(rest[:size], p.Data[i][head*size:])
					rest = rest[size:]
				}
			}
		}
	}
	return w.past
}

// keep copies the keys and values of a row's new tokens into kept, a new cache where that is nil.
func (w *workspace) keep(kept *models.Cache, ports []onnx.CachePort, b *batch, row int) *models.Cache {
	if kept == nil {
		kept = &models.Cache{}
	}
	n := len(b.ids[row])
	kept.Tokens, kept.Data = n, grow(kept.Data, len(ports))
	for i, c := range ports {
		token := c.VectorBytes()
		kept.Data[i] = grow(kept.Data[i], c.Heads*n*token)
		for head := range c.Heads {
			from := ((row*c.Heads+head)*(b.past+b.width) + b.past) * token
			copy(kept.Data[i][head*n*token:], w.present[i][from:from+n*token])
		}
	}
	return kept
}
