package job

import (
	"context"
	"errors"
	"fmt"

	"github.com/dpo-pipe/dpo-pipe/pipeline"
)

// A Plan says what a run would do.
type Plan struct {
	Job string `json:"job"`
	// Resumes names the unfinished run that would be gone on with.
	Resumes string `json:"resumes,omitempty"`
	// Stages are in order; an Action is "run", "reuse" or "skip".
	Stages []Stage `json:"stages"`
	// Cost is what the reference pass would cost; nil where the cache is as wanted.
	Cost *pipeline.CostEstimate `json:"cost,omitempty"`
	// Config is the resolved job file, as YAML.
	Config string `json:"config"`
}

// MakePlan says what [Run] would do. Nothing is written, but for what is brought to this machine.
func MakePlan(ctx context.Context, cfg Config, opt Options) (_ Plan, err error) {
	local, kept, err := located(ctx, &cfg, opt, false)
	if err != nil {
		return Plan{}, err
	}
	defer func() { err = errors.Join(err, kept.Close()) }()
	x, err := open(ctx, &cfg, local, kept, opt)
	if err != nil {
		return Plan{}, err
	}
	p := Plan{Job: cfg.file, Config: text(cfg.node())}
	last, _, err := x.unfinished()
	if err != nil {
		return p, err
	}
	if last != nil {
		p.Resumes = last.ID
	}
	if err := x.planCache(ctx, &p); err != nil {
		return p, err
	}
	if x.cache.plan.State != pipeline.CacheCurrent || x.pairs != nil && x.pairs.plan.State != pipeline.CacheCurrent {
		x.planRest(&p, "the cache changes")
		return p, nil
	}
	trained, err := x.wantTrained()
	if err != nil {
		return p, err
	}
	version, err := x.publishedBefore(trained)
	if err != nil {
		return p, err
	}
	if version != "" {
		for _, name := range []string{StageTrain, StageEvaluate, StageGates, StageExport, StagePublish} {
			p.add(name, "skip", "version "+version+" was made from the same")
		}
		return p, nil
	}
	_, m := x.find(StageTrain, trained)
	if !m.Done {
		why := "cache or settings differ from those of earlier runs"
		if len(x.earlier) == 0 {
			why = "nothing was trained yet"
		}
		x.planRest(&p, why)
		return p, nil
	}
	p.add(StageTrain, "reuse", "cache and settings are those of run "+m.run())
	return p, x.planReused(ctx, &p, m)
}

func (p *Plan) add(name, action, why string) {
	p.Stages = append(p.Stages, Stage{Name: name, Action: action, Text: why})
}

// planCache says what becomes of the caches, counting the pairs where they change.
func (x *execution) planCache(ctx context.Context, p *Plan) error {
	action, why, cost, err := x.planFill(ctx, &x.cache)
	if err != nil {
		return err
	}
	p.Cost = cost
	if x.pairs != nil {
		more, text, _, err := x.planFill(ctx, x.pairs)
		if err != nil {
			return err
		}
		if more == "run" {
			action, why = more, why+"; of the evaluation's "+text
		}
	}
	p.add(StagePrecompute, action, why)
	return nil
}

func (x *execution) planFill(ctx context.Context, p *pass) (action, why string, cost *pipeline.CostEstimate, err error) {
	if p.plan.State == pipeline.CacheCurrent {
		return "reuse", "model, data and settings are those of the cache", nil, nil
	}
	if err := x.kept.Bring(ctx, p.cfg.Out); err != nil {
		return "", "", nil, err
	}
	e, err := pipeline.Estimate(ctx, p.cfg, x.rt, x.opt.Report)
	if err != nil {
		return "", "", nil, err
	}
	why = fmt.Sprintf("%d pairs to compute", e.Counts.Kept)
	switch {
	case e.Update != nil:
		why = updateText(e.Counts.Kept, *e.Update)
	case p.plan.State == pipeline.CacheMissing:
		why += ": there is no cache"
	case p.plan.State == pipeline.CacheUnfinished:
		why += ", less what an interrupted pass left"
	case p.plan.State == pipeline.CacheStale:
		why += ", " + staleText(p.plan.Stale)
	}
	return "run", why, &e, nil
}

// planRest says of every stage from training on that it runs.
func (x *execution) planRest(p *Plan, why string) {
	p.add(StageTrain, "run", why)
	x.planScoring(p, "run", "the checkpoint is a new one")
	x.planEnd(p, "run", "the checkpoint is a new one, if the gates are met")
}

// planScoring says what becomes of the evaluation.
func (x *execution) planScoring(p *Plan, action, why string) {
	if !x.cfg.scores() {
		action, why = "skip", "nothing is held out"
	}
	p.add(StageEvaluate, action, why)
}

// planEnd says what becomes of gates, export and publishing.
func (x *execution) planEnd(p *Plan, export, why string) {
	p.add(StageGates, "run", "they are judged in every run")
	p.add(StageExport, export, why)
	if x.place == nil {
		p.add(StagePublish, "skip", "publish.to names no place")
		return
	}
	p.add(StagePublish, "run", "if the gates are met")
}

// planReused says what becomes of what follows a training that an earlier run has.
func (x *execution) planReused(ctx context.Context, p *Plan, trained made) (err error) {
	if err := x.kept.Bring(ctx, x.output(trained)); err != nil {
		return err
	}
	if x.trained, err = handedOver(x.output(trained)); err != nil {
		return err
	}
	_, against, err := x.against(ctx)
	if err != nil {
		return err
	}
	scored, err := x.wantEvaluated(against)
	if err != nil {
		return err
	}
	if _, m := x.find(StageEvaluate, scored); m.Done {
		x.planScoring(p, "reuse", "the figures are those of run "+m.run())
	} else {
		x.planScoring(p, "run", "published policy or settings differ from those of earlier runs")
	}
	exported, err := x.wantExported()
	if err != nil {
		return err
	}
	if _, m := x.find(StageExport, exported); m.Done {
		x.planEnd(p, "reuse", "the policy is that of run "+m.run())
	} else {
		x.planEnd(p, "run", "no earlier run has it, if the gates are met")
	}
	return nil
}
