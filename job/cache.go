package job

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/dpo-pipe/dpo-pipe/datasets/refcache"
	"github.com/dpo-pipe/dpo-pipe/internal/atomicfile"
	"github.com/dpo-pipe/dpo-pipe/pipeline"
)

// A pass is a cache that a run needs, and what is to be done for it.
type pass struct {
	cfg  pipeline.PrecomputeConfig
	plan pipeline.CachePlan
}

func (x *execution) planPass(ctx context.Context, cfg pipeline.PrecomputeConfig) (pass, error) {
	plan, err := pipeline.PlanCache(ctx, cfg, x.rt)
	return pass{cfg, plan}, err
}

// Rebuilt is where a cache of other settings is made, beside the one that is there.
func Rebuilt(cache string) string {
	return filepath.Join(filepath.Dir(cache), ".rebuild-"+filepath.Base(cache))
}

// fill runs the reference, over all of the data or what is new; the update is nil elsewhere.
func (x *execution) fill(ctx context.Context, p *pass) (s Stage, u *pipeline.UpdateCounts, err error) {
	if p.plan.State != pipeline.CacheCurrent {
		if err := x.kept.Bring(ctx, p.cfg.Out); err != nil {
			return Stage{}, nil, err
		}
	}
	switch p.plan.State {
	case pipeline.CacheCurrent:
		s = Stage{Action: "reused", Text: "model, data and settings are those of the cache"}
	case pipeline.CacheStale:
		s, err = x.rebuild(ctx, p)
	default:
		var r pipeline.PrecomputeResult
		r, err = pipeline.Precompute(ctx, p.cfg, x.rt, x.opt.Report)
		s, u = Stage{Action: "ran", Text: cacheText(&r)}, r.Update
	}
	if err == nil {
		if err = os.RemoveAll(Rebuilt(p.cfg.Out)); err != nil {
			err = fmt.Errorf("job: cache: %w", err)
		}
	}
	// Of a pass that was stopped the whole parts stay, for a start on whichever machine.
	if err := errors.Join(err, x.kept.Save(context.WithoutCancel(ctx), p.cfg.Out)); err != nil {
		return Stage{}, nil, err
	}
	return s, u, nil
}

// rebuild makes a cache of other settings beside the one that is there, which serves until
// the new one is whole.
func (x *execution) rebuild(ctx context.Context, p *pass) (Stage, error) {
	cfg := p.cfg
	cfg.Out = Rebuilt(p.cfg.Out)
	plan, err := pipeline.PlanCache(ctx, cfg, x.rt)
	if err != nil {
		return Stage{}, err
	}
	if plan.State == pipeline.CacheStale {
		if err := os.RemoveAll(cfg.Out); err != nil {
			return Stage{}, fmt.Errorf("job: cache: %w", err)
		}
	}
	r, err := pipeline.Precompute(ctx, cfg, x.rt, x.opt.Report)
	if err != nil {
		return Stage{}, err
	}
	err = atomicfile.Exchange(cfg.Out, p.cfg.Out)
	if errors.Is(err, errors.ErrUnsupported) {
		if err = atomicfile.RemoveDir(p.cfg.Out); err == nil {
			err = atomicfile.Rename(cfg.Out, p.cfg.Out)
		}
	}
	return Stage{Action: "ran", Text: fmt.Sprintf("%d pairs computed, %s", r.Counts.Kept, staleText(p.plan.Stale))}, err
}

func staleText(e *refcache.StaleError) string {
	return fmt.Sprintf("all anew: %s was %q, is %q", e.Key, short(e.Have), short(e.Want))
}

// short leaves of a hash what is enough to tell it from another.
func short(s string) string {
	if len(s) > 40 {
		return s[:12] + "…"
	}
	return s
}

func cacheText(r *pipeline.PrecomputeResult) string {
	if u := r.Update; u != nil {
		return updateText(r.Counts.Kept, *u)
	}
	return fmt.Sprintf("%d pairs computed", r.Counts.Kept)
}

func updateText(kept int64, u pipeline.UpdateCounts) string {
	return fmt.Sprintf("%d pairs: %d reused, %d computed, %d dropped", kept, u.Reused, u.Computed, u.Dropped)
}

// cached is how many pairs the cache of the data holds; 0 where it is none, or unfinished.
func (x *execution) cached() int64 {
	m, err := refcache.ReadManifest(x.cfg.Cache.Out)
	if err != nil || !m.Complete {
		return 0
	}
	return m.Counts.Kept
}

// counted notes what is in the cache. An update says what changed; without one, as when an
// attempt was killed behind it, the numbers of pairs do.
func (x *execution) counted(u *pipeline.UpdateCounts) error {
	m, err := refcache.ReadManifest(x.cfg.Cache.Out)
	if err != nil {
		return err
	}
	r := x.run
	r.Pairs = m.Counts.Kept
	r.NewPairs, r.DroppedPairs = max(0, r.Pairs-r.Before), max(0, r.Before-r.Pairs)
	if u != nil {
		r.NewPairs, r.DroppedPairs = u.Computed, u.Dropped
	}
	r.DroppedRows = map[string]int64{}
	for _, d := range m.Counts.Dropped.Drops {
		r.DroppedRows[string(d.Reason)] = d.Rows
	}
	return nil
}
