package pipeline

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dpo-pipe/dpo-pipe/datasets"
	"github.com/dpo-pipe/dpo-pipe/datasets/encode"
	"github.com/dpo-pipe/dpo-pipe/datasets/refcache"
)

// PrecomputeResult says what a reference pass did.
type PrecomputeResult struct {
	// Cache is the folder, complete.
	Cache string `json:"cache"`
	// Shard is there where the pass was split; Joined says that the cache it is a part of
	// was complete already.
	Shard  *refcache.Shard `json:"shard,omitempty"`
	Joined bool            `json:"joined,omitempty"`
	// Counts are of the whole cache, rows of earlier interrupted passes included. Of a
	// shard, rows read and dropped are all of the data, those kept its own.
	Counts refcache.Counts `json:"counts"`
	// Parts is the number of part files, Resumed how many were there before.
	Parts   int `json:"parts"`
	Resumed int `json:"resumed_parts"`
	// Work is what this process ran through the backbone.
	Work
	// PaddingShare and SharedShare are Work's Padding and Shared.
	PaddingShare float64 `json:"padding_share"`
	SharedShare  float64 `json:"shared_share"`
	Seconds      float64 `json:"seconds"`
	// Update is there where a finished cache of other data was brought to this one.
	Update *UpdateCounts `json:"update,omitempty"`
	// PassedOver says which files of named folders were not read.
	PassedOver []string `json:"passed_over,omitempty"`
}

// Precompute runs the frozen reference over the data and writes the reference
// cache cfg.Out. If cfg.Out holds an unfinished cache of the same identity, it
// goes on behind its last whole part; a finished one of the same identity is
// left as it is. One that differs in its data alone is replaced, which costs the pairs
// that are new; the error is a *[PruneError] where that would drop pairs and cfg.Prune is
// not set. On error or cancellation the parts written so far stay, and so does a cache
// that was to be replaced.
//
// With cfg.Shards it makes one shard of a new cache, in a folder below cfg.Out, in the
// same way; [Join] makes the cache.
func Precompute(ctx context.Context, cfg PrecomputeConfig, rt Runtime, report Reporter) (PrecomputeResult, error) {
	if err := cfg.Validate(); err != nil {
		return PrecomputeResult{}, err
	}
	if err := errors.Join(refcache.Recover(cfg.Out), checkCacheFolder(cfg)); err != nil {
		return PrecomputeResult{}, err
	}
	p := &precompute{cfg: cfg, report: report, start: time.Now()}
	ref, err := openReference(ctx, cfg, rt)
	if err != nil {
		return PrecomputeResult{}, err
	}
	defer ref.close()
	p.ref = ref
	defer p.close()
	if err := p.fill(ctx); err != nil {
		return PrecomputeResult{}, err
	}
	return p.finished()
}

// fill writes the cache, or goes on with it, or updates it, or finds nothing to do.
func (p *precompute) fill(ctx context.Context) (err error) {
	if p.cfg.Shards > 0 {
		return p.fillShard(ctx)
	}
	if refcache.IsCache(p.cfg.Out) {
		if p.update, err = openUpdate(p.cfg.Out, p.ref.identity); err != nil {
			return err
		}
	}
	if p.update != nil {
		return errors.Join(p.runUpdate(ctx), p.update.close())
	}
	if err := p.goOn(ctx); err != nil || p.w != nil {
		return err
	}
	return tidy(p.cfg.Out)
}

// goOn begins the pass or goes on with what is in its folder. Where that is complete, be it
// by another process meanwhile, p.w is nil afterwards.
func (p *precompute) goOn(ctx context.Context) (err error) {
	// A pass whose first rows turn out to be unusable leaves no folder.
	if refcache.IsCache(p.cfg.dir()) {
		err = p.create(ctx)
	}
	if err == nil {
		err = p.run(ctx)
	}
	if errors.Is(err, refcache.ErrComplete) {
		return nil
	}
	return err
}

// checkCacheFolder refuses, before the model is loaded, a folder that holds
// something else than a cache.
func checkCacheFolder(c PrecomputeConfig) error {
	path := c.Out
	if refcache.IsCache(path) {
		return nil
	}
	shards, err := refcache.Shards(path)
	if err != nil {
		return err
	}
	if len(shards) > 0 && c.Shards == 0 {
		return &FieldError{"--out", path, "another folder; that one holds shards of a cache, to go on with by --shards or to --join"}
	}
	if len(shards) > 0 {
		return nil
	}
	return checkNew(path, "reference cache", "head.safetensors")
}

// precompute is the state of one pass.
type precompute struct {
	cfg     PrecomputeConfig
	ref     *reference
	w       *refcache.Writer // nil until there is a part to write
	writing background
	update  *update // nil where no cache is updated
	report  Reporter
	start   time.Time
	// position counts rows from the first on, earlier passes included.
	position refcache.Position
	kept     int64
	before   int64 // pairs that an earlier pass had scored
	windows  int   // so many came so far, those of other shards included
	rows     rowCount
	fresh    int64 // pairs scored by this process
	result   PrecomputeResult
}

// create starts the cache, or takes up the one that is there.
func (p *precompute) create(ctx context.Context) (err error) {
	v := p.ref.vocabulary
	m := refcache.Manifest{Shard: p.cfg.shard(), Identity: p.ref.identity, D: v.D, V: v.V, FeatureDType: p.cfg.Features}
	head := refcache.Head{V: v.V, D: v.D, Weight: v.Weight, Bias: v.Bias, Scale: v.Scale, Softcap: v.Softcap}
	var w *refcache.Writer
	if p.update != nil {
		w, err = refcache.CreateSuccessor(ctx, p.update.dir, m, head)
	} else {
		w, err = refcache.Create(p.cfg.dir(), m, head)
	}
	if err != nil {
		return err
	}
	p.w, p.position, p.before = w, w.Position(), w.Rows()
	p.kept = p.position.Rows - p.position.Dropped.Rows() // of all shards
	p.windows = m.Shard.Next(w.Parts())
	p.result.Resumed = w.Parts()
	return nil
}

func (p *precompute) close() {
	if p.w != nil {
		_ = p.writing.wait() // another error came first
		p.w.Close()
	}
}

// finished describes the complete cache.
func (p *precompute) finished() (PrecomputeResult, error) {
	dir := p.cfg.dir()
	if p.result.Joined {
		dir = p.cfg.Out
	}
	m, err := p.manifest(dir)
	if err != nil {
		return PrecomputeResult{}, err
	}
	p.result.Cache, p.result.Shard, p.result.Counts, p.result.Parts = dir, p.cfg.shard(), m.Counts, len(m.Parts)
	if p.w == nil || p.result.Joined { // it was complete before
		p.result.Resumed = len(m.Parts)
		p.position.Rows, p.position.Dropped = m.Counts.Read, m.Counts.Dropped
		if err := p.checkRows(true); err != nil {
			return PrecomputeResult{}, err
		}
	}
	p.result.PaddingShare, p.result.SharedShare = p.result.Padding(), p.result.Shared()
	p.result.Seconds = time.Since(p.start).Seconds()
	return p.result, nil
}

// manifest is that of the finished pass.
func (p *precompute) manifest(dir string) (refcache.Manifest, error) {
	if p.cfg.Elsewhere != nil && !p.result.Joined {
		return *p.cfg.Elsewhere, nil
	}
	return refcache.ReadManifest(dir)
}

// run scores window after window; a window is a part of the cache.
func (p *precompute) run(ctx context.Context) error {
	s, err := openSource(ctx, p.cfg.Data, p.cfg.Reading, p.ref.encoder, p.position.Rows)
	if err != nil {
		return err
	}
	defer s.close()
	p.result.PassedOver = s.passedOver
	stop := p.rows.start(ctx, p.cfg)
	defer stop()
	part := p.part
	switch {
	case p.update != nil:
		part = p.updatePart
	case p.cfg.Shards > 0:
		part = p.shardPart
	}
	for end := false; !end; {
		var window []encode.Pair
		window, end, err = p.window(ctx, s)
		if err != nil {
			return err
		}
		if len(window) == 0 {
			break
		}
		if err := part(ctx, window); err != nil {
			return err
		}
		p.windows++
	}
	if p.kept == 0 {
		return p.noRows()
	}
	if p.w == nil { // there are fewer windows than shards
		if err := p.begin(ctx); err != nil {
			return err
		}
	}
	if err := p.writing.wait(); err != nil {
		return err
	}
	return p.w.Finish(p.position)
}

// part scores a window and appends it to the cache, where it is being written when part returns.
func (p *precompute) part(ctx context.Context, window []encode.Pair) error {
	rows, err := p.score(ctx, window)
	if err != nil {
		return err
	}
	if p.w == nil {
		if err := p.begin(ctx); err != nil {
			return err
		}
	}
	if err := p.writing.wait(); err != nil {
		return err
	}
	position := p.position
	position.Dropped = datasets.Tally{}
	position.Dropped.Merge(p.position.Dropped) // the next window counts on in its own
	p.writing.start(func() error { return p.w.WritePart(rows, position) })
	p.kept += int64(len(window))
	return nil
}

// begin creates the cache where the pass already is at its first part.
func (p *precompute) begin(ctx context.Context) error {
	position, kept, windows := p.position, p.kept, p.windows
	if err := p.create(ctx); err != nil {
		return err
	}
	if n := p.w.Parts(); n > 0 {
		return fmt.Errorf("pipeline: cache %q got %d parts from another process meanwhile: run the command again to go on behind them", p.cfg.dir(), n)
	}
	p.position, p.kept, p.windows = position, kept, windows
	return nil
}

// score runs a window through the reference, batch by batch.
func (p *precompute) score(ctx context.Context, window []encode.Pair) ([]refcache.Row, error) {
	rows := make([]refcache.Row, len(window))
	for i, pair := range window {
		rows[i] = rowOf(pair)
	}
	left := make([]int, len(window)) // completions of a pair still to come
	for i := range left {
		left[i] = 2
	}
	seqs := sequences(window)
	features := make([][]float32, len(seqs))
	err := p.ref.forward(ctx, seqs, plan(seqs, p.bounds()), features, func(b batch, ended []int) error {
		if err := p.ended(ctx, seqs, ended, features, rows); err != nil {
			return err
		}
		p.result.add(b)
		for _, i := range ended {
			p.result.addSequence(seqs[i])
			for _, s := range seqs[i].uses {
				if left[s.pair]--; left[s.pair] == 0 {
					p.fresh++
				}
			}
		}
		p.progress()
		return nil
	})
	var feature *refcache.FeatureError
	if err != nil && !errors.As(err, &feature) {
		err = fmt.Errorf("pipeline: rows from %d to %d: %w", window[0].Row, window[len(window)-1].Row, err)
	}
	return rows, err
}

// bounds are those of what is run at once.
func (p *precompute) bounds() limits { return p.ref.bounds(p.cfg.BatchTokens, p.cfg.Memory) }

// rowOf is what the cache holds of a pair that is not scored.
func rowOf(pair encode.Pair) refcache.Row {
	return refcache.Row{
		ID: pair.ID, PromptKey: pair.PromptKey, Prompt: pair.Prompt, Chosen: pair.Chosen, Rejected: pair.Rejected, Weight: pair.Weight,
	}
}

// ended fills in features and log-probs of the sequences that a batch completed. Features are
// rounded to what the cache stores before log-probs are taken from them, so
// that training starts at a log-ratio of 0.
func (p *precompute) ended(ctx context.Context, seqs []sequence, ended []int, features [][]float32, rows []refcache.Row) error {
	var batch []sequence
	var states [][]float32
	for _, i := range ended {
		s := seqs[i]
		if err := p.round(features[i], rows[s.uses[0].pair].ID, s.uses[0].chosen); err != nil {
			return err
		}
		batch, states = append(batch, s), append(states, features[i])
	}
	logps, err := p.ref.logps(ctx, batch, states)
	if err != nil {
		return err
	}
	for i, s := range batch {
		for _, u := range s.uses {
			row := &rows[u.pair]
			if u.chosen {
				row.ChosenRefLogps = logps[i]
			} else {
				row.RejectedRefLogps = logps[i]
			}
			if p.cfg.Features != refcache.None {
				setFeatures(row, u.chosen, states[i])
			}
		}
	}
	return nil
}

// round rounds the features of a completion to what the cache stores. The error is a
// *refcache.FeatureError where that can't hold them.
func (p *precompute) round(features []float32, id datasets.ID, chosen bool) error {
	at := refcache.Round(features, p.cfg.Features)
	if at < 0 {
		return nil
	}
	return &refcache.FeatureError{
		ID: id, Side: sideName(chosen), Token: at / p.ref.vocabulary.D, Value: features[at], DType: p.cfg.Features,
	}
}

func (p *precompute) progress() {
	r := Progress{
		Stage: "precompute-ref", Done: p.before + p.fresh, Unit: "pairs", Fresh: p.fresh,
		Tokens: p.result.Tokens, Elapsed: time.Since(p.start),
	}
	if rows := p.rows.n.Load(); rows > 0 {
		r.Total = max(r.Done, rows-p.position.Dropped.Rows())
	}
	if p.cfg.Limit > 0 && (r.Total == 0 || r.Total > p.cfg.Limit) {
		r.Total = p.cfg.Limit
	}
	if n := int64(p.cfg.Shards); n > 0 {
		r.Total = max(r.Done, (r.Total+n-1)/n) // about
	}
	if p.update != nil {
		p.update.progress(&r)
	}
	p.report.report(r)
}
