package pipeline

import (
	"context"
	"math"
	"sync"

	"github.com/dpo-pipe/dpo-pipe/models"
)

// lookahead is how many batches a lane looks at for one whose past is there. Each one taken before its
// turn keeps more than was planned.
const lookahead = 4

// lanes run the batches of a plan, several at once.
type lanes struct {
	backbone Backbone
	d        int
	seqs     []sequence
	features [][]float32 // of each sequence [n,D], filled in as its nodes are run
	plan     []batch
	spare    *caches
	ended    func(b batch, seqs []int) error

	mu       sync.Mutex
	changed  *sync.Cond
	finished sync.Mutex // held while ended is called
	taken    []bool
	ran      map[*node]bool
	next     int // batches before it are taken
	err      error
}

// transformer is a backbone that runs the sequences of windows; d is the width of its
// hidden states.
type transformer struct {
	backbone Backbone
	d        int
	spare    *caches
}

// bounds are those of what is run at once, for what the backbone can do.
func (r transformer) bounds(batchTokens int, memory int64) limits {
	t := r.backbone.Traits()
	l := limits{continuation: t.Continuation, tokens: batchTokens, cached: math.MaxInt, kept: math.MaxInt, worth: worthTokens}
	if t.CacheBytes > 0 {
		l.cached = int(memory / batchShare / t.CacheBytes)
		l.kept = int(memory / keptShare / t.CacheBytes)
	}
	if t.Continuation == models.NoContinuation {
		l.worth = math.MaxInt
	}
	return l
}

// forward runs the plan of a window's sequences. After each batch ended is called, never twice at
// once, with the sequences that are complete by it; features[i] then holds the
// states that predict the completion of sequence i, [n,D].
func (r transformer) forward(ctx context.Context, seqs []sequence, plan []batch, features [][]float32,
	ended func(b batch, seqs []int) error,
) error {
	l := &lanes{
		backbone: r.backbone, d: r.d, seqs: seqs, features: features, plan: plan, ended: ended,
		taken: make([]bool, len(plan)), ran: map[*node]bool{}, spare: r.spare,
	}
	l.changed = sync.NewCond(&l.mu)
	for i, s := range seqs {
		features[i] = make([]float32, s.completion()*l.d)
	}
	for _, b := range plan {
		for _, n := range b.nodes {
			if n.parent != nil {
				n.parent.left++
			}
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	for range r.backbone.Traits().Lanes {
		wg.Go(func() {
			for b := l.take(); b != nil; b = l.take() {
				if l.done(*b, l.step(ctx, *b)) != nil {
					cancel()
				}
			}
		})
	}
	wg.Wait()
	return l.err
}

// take waits for a batch whose past is there; nil says that no more is to be run.
func (l *lanes) take() *batch {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		for l.next < len(l.plan) && l.taken[l.next] {
			l.next++
		}
		if l.err != nil || l.next == len(l.plan) {
			return nil
		}
		for i := l.next; i < min(l.next+lookahead, len(l.plan)); i++ {
			if !l.taken[i] && l.ready(l.plan[i]) {
				l.taken[i] = true
				return &l.plan[i]
			}
		}
		l.changed.Wait()
	}
}

// ready reports whether all that precedes the runs of b was run.
func (l *lanes) ready(b batch) bool {
	for _, n := range b.nodes {
		if n.parent != nil && !l.ran[n.parent] {
			return false
		}
	}
	return true
}

// step runs a batch, hands the states out, and says which sequences are complete.
func (l *lanes) step(ctx context.Context, b batch) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	runs := make([]*models.Run, len(b.nodes))
	for i, n := range b.nodes {
		runs[i] = &models.Run{
			Past: n.past(), IDs: l.seqs[n.seq].ids[n.start:n.end], From: n.from - n.start, Keep: len(n.children) > 0,
		}
		if runs[i].Keep {
			runs[i].Cache = l.spare.get()
		}
	}
	if err := l.backbone.Run(ctx, runs); err != nil {
		return err
	}
	var complete []int
	for i, n := range b.nodes {
		n.cache = runs[i].Cache
		n.through(func(s int) { l.deliver(n, s, runs[i].Hidden) })
		complete = append(complete, n.ends...)
	}
	l.finished.Lock()
	defer l.finished.Unlock()
	return l.ended(b, complete)
}

// deliver copies the states of n, from its first wanted one on, that predict the completion of s.
func (l *lanes) deliver(n *node, s int, hidden []float32) {
	first := l.seqs[s].prompt - 1
	from := max(first, n.from)
	if from < n.end {
		copy(l.features[s][(from-first)*l.d:], hidden[(from-n.from)*l.d:])
	}
}

// done wakes the lanes that wait for a batch, and frees what none waits for.
func (l *lanes) done(b batch, err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.err = err
	}
	for _, n := range b.nodes {
		l.ran[n] = true
		if len(n.children) == 0 {
			n.release(l.spare)
		}
	}
	l.changed.Broadcast()
	return l.err
}
