package job

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/dpo-pipe/dpo-pipe/internal/atomicfile"
	"github.com/dpo-pipe/dpo-pipe/internal/checksum"
	"github.com/dpo-pipe/dpo-pipe/pipeline"
)

// stages runs one stage after another. A gate that is known early is judged early.
func (x *execution) stages(ctx context.Context) error {
	if ended, err := x.isCurrent(); ended || err != nil {
		return err
	}
	if err := x.timed(ctx, StagePrecompute, func() (Stage, error) { return x.precompute(ctx) }); err != nil {
		return err
	}
	trained, err := x.wantTrained()
	if err != nil {
		return err
	}
	version, err := x.publishedBefore(trained)
	if err != nil {
		return err
	}
	if version != "" {
		return x.unchanged(trained, version)
	}
	if err := x.enoughPairs(ctx); err != nil {
		return err
	}
	for _, s := range []struct {
		name string
		do   func(context.Context) (Stage, error)
	}{
		{StageTrain, func(ctx context.Context) (Stage, error) { return x.train(ctx, trained) }},
		{StageEvaluate, x.evaluate},
		{StageGates, x.judge},
		{StageExport, x.export},
		{StagePublish, x.publish},
	} {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		if err := x.timed(ctx, s.name, func() (Stage, error) { return s.do(ctx) }); err != nil {
			return err
		}
	}
	if x.run.Status == Running {
		x.run.Status = x.madeStatus()
	}
	return nil
}

// isCurrent reports whether an attempt of this run was killed behind publishing, which is then
// noted.
func (x *execution) isCurrent() (bool, error) {
	if x.place == nil {
		return false, nil
	}
	version, _, ok, err := x.place.Current()
	if err != nil || !ok || version != x.run.ID {
		return false, err
	}
	x.run.stage(Stage{Name: StagePublish, Action: "ran", Text: "version " + version + " is current"})
	x.run.Published, x.run.Status = version, Published
	return true, nil
}

// timed runs a stage and notes what became of it.
func (x *execution) timed(ctx context.Context, name string, do func() (Stage, error)) error {
	start := time.Now()
	s, err := do()
	if err != nil && s.Action == "" {
		return err
	}
	s.Name, s.Seconds = name, time.Since(start).Seconds()
	x.run.stage(s)
	x.log.Info(name, "action", s.Action, "text", s.Text, "seconds", s.Seconds)
	return errors.Join(err, x.save(ctx, x.run))
}

// unchanged notes that the policy these inputs make was published before.
func (x *execution) unchanged(trained, version string) error {
	current, _, _, err := x.place.Current()
	if err != nil {
		return err
	}
	text := "version " + version + " was made from the same"
	if current != version {
		text += "; current is " + current
	}
	for _, name := range []string{StageTrain, StageEvaluate, StageGates, StageExport, StagePublish} {
		x.run.stage(Stage{Name: name, Action: "skipped", Text: text})
	}
	x.log.Info("nothing to do", "text", text)
	if r, m := x.find(StageTrain, trained); r != nil {
		x.run.identities.Stages[StageTrain] = m
		x.run.HeldOut, x.run.Metrics, x.run.Intervals, x.run.Alarms = r.HeldOut, r.Metrics, r.Intervals, r.Alarms
	}
	x.run.Status = Unchanged
	return nil
}

// madeStatus is Unchanged where no stage of a job that publishes nothing ran.
func (x *execution) madeStatus() Status {
	for _, s := range x.run.Stages {
		if s.Action == "ran" && s.Name != StageGates {
			return Done
		}
	}
	return Unchanged
}

// find looks for a run, the newest first, whose stage was made from the same and whose outcome
// is still there.
func (x *execution) find(stage, inputs string) (*Result, made) {
	all := append(x.earlier[:len(x.earlier):len(x.earlier)], x.run)
	for i := len(all) - 1; i >= 0; i-- {
		if all[i] == nil {
			continue
		}
		m, ok := all[i].identities.Stages[stage]
		if !ok || !m.Done || m.Inputs != inputs {
			continue
		}
		if x.kept.Has(x.output(m)) {
			return all[i], m
		}
	}
	return nil, made{}
}

func (x *execution) output(m made) string { return filepath.Join(x.cfg.Runs.Path, m.Output) }

// begun notes what a stage of this run is made from. What an attempt with other inputs left
// is removed; what one with the same left is gone on with.
func (x *execution) begun(ctx context.Context, stage, name, inputs string, resumes bool) (string, error) {
	m := made{Inputs: inputs, Output: filepath.Join(x.run.ID, name)}
	clear := x.remove
	if have := x.run.identities.Stages[stage]; have.Inputs == inputs && resumes {
		clear = x.kept.Bring
	}
	if err := clear(ctx, x.output(m)); err != nil {
		return "", err
	}
	x.run.identities.Stages[stage] = m
	return x.output(m), x.save(ctx, x.run)
}

// done notes that the outcome of a stage is whole.
func (x *execution) done(stage string) {
	m := x.run.identities.Stages[stage]
	m.Done = true
	x.run.identities.Stages[stage] = m
}

// precompute brings the caches to model, data and settings.
func (x *execution) precompute(ctx context.Context) (Stage, error) {
	s, u, err := x.fill(ctx, &x.cache)
	if err != nil {
		return Stage{}, err
	}
	if err := x.counted(u); err != nil || x.pairs == nil {
		return s, err
	}
	of, _, err := x.fill(ctx, x.pairs)
	if err != nil {
		return Stage{}, err
	}
	if of.Action == "ran" {
		s.Action = "ran"
		s.Text += "; of the evaluation's " + of.Text
	}
	return s, nil
}

// enoughPairs judges how many pairs are new since the last published run.
func (x *execution) enoughPairs(ctx context.Context) error {
	if x.cfg.Gates.MinNewPairs == 0 {
		return nil
	}
	n := x.run.NewPairs
	since := "the last published run"
	for _, r := range slices.Backward(x.earlier) {
		if r.Status == Damaged { // which may have been published
			since = "run " + r.ID + ", whose record is damaged"
		}
		if r.Status == Published || r.Status == Damaged {
			break
		}
		n += r.NewPairs
	}
	gate := x.cfg.Gates.newPairs(n, since)
	x.run.Gates = []Gate{gate}
	if gate.Met {
		return nil
	}
	err := &GateError{[]Gate{gate}}
	return x.timed(ctx, StageGates, func() (Stage, error) { return Stage{Action: "ran", Text: gate.Text}, err })
}

// wantTrained is the identity of what training makes of the cache.
func (x *execution) wantTrained() (string, error) {
	content, err := cacheContent(x.cfg.Cache.Out)
	if err != nil {
		return "", err
	}
	return hashOf(content, settings(&x.cfg.Train, "train"), x.cfg.Train.Sweep)
}

// train trains a head, or a sweep of them, or takes what an earlier run trained.
func (x *execution) train(ctx context.Context, inputs string) (Stage, error) {
	if _, m := x.find(StageTrain, inputs); m.Done {
		x.run.identities.Stages[StageTrain] = m
		err := x.kept.Bring(ctx, x.output(m))
		if err == nil {
			x.trained, err = handedOver(x.output(m))
		}
		return Stage{Action: "reused", Text: "cache and settings are those of run " + m.run()}, err
	}
	out, err := x.begun(ctx, StageTrain, trainName, inputs, true)
	if err == nil {
		err = x.kept.Bring(ctx, x.cfg.Cache.Out)
	}
	if err != nil {
		return Stage{}, err
	}
	text, err := x.trainIn(ctx, out)
	if damaged := (*pipeline.ResumeError)(nil); errors.As(err, &damaged) {
		x.log.Warn("the checkpoint that training would go on from is damaged; it begins anew", "checkpoint", damaged.Checkpoint, "problem", err)
		if err = x.remove(ctx, out); err == nil {
			text, err = x.trainIn(ctx, out)
		}
	}
	// Of a training that was stopped the checkpoint stays, for a start on whichever machine.
	if err := errors.Join(err, x.kept.Save(context.WithoutCancel(ctx), out)); err != nil {
		return Stage{}, err
	}
	if x.trained, err = handedOver(out); err != nil {
		return Stage{}, err
	}
	x.done(StageTrain)
	err = atomicfile.CopyFile(x.run.path(pipeline.ReportName), filepath.Join(out, pipeline.ReportName))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return Stage{Action: "ran", Text: text}, err
}

func (x *execution) trainIn(ctx context.Context, out string) (string, error) {
	cfg, engines := x.cfg.train(out), x.opt.Engines(x.cfg.Runtime)
	if axes := x.cfg.Train.Sweep; len(axes) > 0 {
		r, err := pipeline.Sweep(ctx, cfg, axes, engines, x.opt.Report)
		if err == nil && r.Best == "" {
			err = errors.New("job: the sweep has no best run: it held out no pair")
		}
		return fmt.Sprintf("%d runs, the best %s", len(r.Runs), r.Best), err
	}
	r, err := pipeline.Train(ctx, cfg, engines, x.opt.Report)
	return fmt.Sprintf("%d steps on %d pairs", r.Steps, r.TrainPairs), err
}

// evaluate scores held-out pairs, beside the published policy where there is one.
func (x *execution) evaluate(ctx context.Context) (Stage, error) {
	if !x.cfg.scores() {
		return Stage{Action: "skipped", Text: "nothing is held out"}, nil
	}
	version, against, err := x.against(ctx)
	if err != nil {
		return Stage{}, err
	}
	inputs, err := x.wantEvaluated(against)
	if err != nil {
		return Stage{}, err
	}
	stage := Stage{Action: "reused"}
	scored, err := x.scored(ctx, inputs)
	if err != nil {
		return Stage{}, err
	}
	if !scored {
		if x.evaluation, err = x.score(ctx, inputs, against); err != nil {
			return Stage{}, err
		}
		x.done(StageEvaluate)
		stage.Action = "ran"
	}
	stage.Text = x.evaluated(version)
	return stage, nil
}

// scored takes the figures of an earlier evaluation of the same, if they can be read.
func (x *execution) scored(ctx context.Context, inputs string) (bool, error) {
	_, m := x.find(StageEvaluate, inputs)
	if !m.Done {
		return false, nil
	}
	if err := x.kept.Bring(ctx, x.output(m)); err != nil {
		return false, err
	}
	r := new(pipeline.EvalResult)
	if err := readJSON(x.output(m), r); err != nil {
		x.log.Warn("the figures of an earlier run are damaged and scored anew", "run", m.run(), "problem", err)
		return false, nil
	}
	x.run.identities.Stages[StageEvaluate], x.evaluation = m, r
	return true, nil
}

// score scores the pairs, beside the published policy's checkpoint unless that is "".
func (x *execution) score(ctx context.Context, inputs, against string) (*pipeline.EvalResult, error) {
	path, err := x.begun(ctx, StageEvaluate, evaluationName, inputs, false)
	cfg := x.cfg.evaluate(x.trained, against)
	if err == nil {
		err = x.kept.Bring(ctx, cfg.Cache)
	}
	if err != nil {
		return nil, err
	}
	result, err := pipeline.Evaluate(ctx, cfg, x.opt.Engines(x.cfg.Runtime), x.opt.Report)
	if err != nil {
		return nil, err
	}
	result.Cache, result.Checkpoint = x.kept.Named(result.Cache), x.kept.Named(result.Checkpoint)
	return &result, writeJSON(path, result)
}

// evaluated notes the figures.
func (x *execution) evaluated(version string) string {
	e, name := x.evaluation, x.cfg.Gates.Accuracy
	x.run.HeldOut, x.run.Metrics, x.run.Intervals, x.run.Alarms = e.Pairs, e.Metrics, e.Intervals, e.Alarms
	i := e.Intervals.Get(name)
	text := fmt.Sprintf("%d pairs: %s %.4f (%.4f … %.4f), kl %.4f", e.Pairs, name, e.Metrics.Get(name), i.Low, i.High, e.Metrics.Get("kl"))
	if e.Against != nil {
		text += fmt.Sprintf("; published %s: %.4f", version, e.Against.Metrics.Get(name))
	}
	return text
}

// against is the published policy's checkpoint, verified, "" where there is none to compare with.
func (x *execution) against(ctx context.Context) (version, checkpoint string, err error) {
	if !x.cfg.compares() {
		return "", "", nil
	}
	version, folder, ok, err := x.place.Current()
	if err != nil || !ok {
		return "", "", err
	}
	return version, filepath.Join(folder, pipeline.AdapterName), x.place.Verify(ctx, version, folder, pipeline.AdapterName)
}

func (x *execution) wantEvaluated(against string) (string, error) {
	cache, errA := cacheContent(x.cfg.evaluate("", "").Cache)
	trained, errB := adapterContent(x.trained)
	published, errC := "", error(nil)
	if against != "" {
		published, errC = adapterContent(against)
	}
	if err := errors.Join(errA, errB, errC); err != nil {
		return "", err
	}
	// The objective of the checkpoint is that of the figures.
	return hashOf(cache, trained, published, settings(&x.cfg.Evaluation, "evaluation"), settings(&x.cfg.Train, "train"))
}

// judge holds the figures against the gates.
func (x *execution) judge(context.Context) (Stage, error) {
	if x.evaluation == nil {
		return Stage{Action: "skipped", Text: "nothing is held out"}, nil
	}
	gates, err := x.cfg.Gates.judge(x.evaluation, x.cfg.compares())
	if err != nil {
		return Stage{}, err
	}
	x.run.Gates = append(x.run.Gates, gates...)
	all := x.run.Gates
	if len(all) == 0 {
		return Stage{Action: "skipped", Text: "the job has none"}, nil
	}
	not := unmet(all)
	s := Stage{Action: "ran", Text: fmt.Sprintf("%d of %d met", len(all)-len(not), len(all))}
	for _, g := range all {
		x.log.Info("gate", "key", g.Key, "met", g.Met, "text", g.Text)
	}
	if len(not) > 0 {
		err := &GateError{not}
		s.Text += ": " + strings.TrimPrefix(err.Error(), "job: gate not met, nothing was published: ")
		return s, err
	}
	return s, nil
}

// export writes the policy's model folder, verified, or takes an earlier one.
func (x *execution) export(ctx context.Context) (Stage, error) {
	inputs, err := x.wantExported()
	if err != nil {
		return Stage{}, err
	}
	if _, m := x.find(StageExport, inputs); m.Done {
		if err := x.kept.Bring(ctx, x.output(m)); err != nil {
			return Stage{}, err
		}
		err := checksum.VerifyAll(x.output(m))
		if err == nil {
			x.run.identities.Stages[StageExport], x.run.Policy = m, m.Output
			return Stage{Action: "reused", Text: "the policy is that of run " + m.run()}, nil
		}
		x.log.Warn("the policy of an earlier run is damaged and made anew", "run", m.run(), "problem", err)
	}
	out, err := x.begun(ctx, StageExport, policyName, inputs, false)
	if err == nil {
		err = x.kept.Bring(ctx, x.cfg.Cache.Out)
	}
	if err != nil {
		return Stage{}, err
	}
	r, err := pipeline.Export(ctx, x.cfg.export(x.trained, out), x.rt, x.opt.Report)
	if err == nil && x.place == nil { // else the place has it in a moment
		err = x.kept.Save(ctx, out)
	}
	if err != nil {
		return Stage{}, err
	}
	x.done(StageExport)
	x.run.Policy = x.run.identities.Stages[StageExport].Output
	return Stage{Action: "ran", Text: fmt.Sprintf("%s, verified on %d tokens", r.Form, r.Verified.Tokens)}, nil
}

// wantExported is the identity of the policy's model folder.
func (x *execution) wantExported() (string, error) {
	trained, err := adapterContent(x.trained)
	if err != nil {
		return "", err
	}
	return hashOf(trained, x.cache.plan.Identity["model"], settings(&x.cfg.Export, "export"))
}

// withdrawnError is that of a version which was published and rolled back since.
type withdrawnError interface {
	error
	// Withdrawn marks the kind.
	Withdrawn()
}

// metaTrain is what a version says of the inputs of its training.
const metaTrain = "train"

// publish makes the policy the current version of the place.
func (x *execution) publish(ctx context.Context) (Stage, error) {
	if x.place == nil {
		return Stage{Action: "skipped", Text: "publish.to names no place"}, nil
	}
	before, _, ok, err := x.place.Current()
	if err != nil {
		return Stage{}, err
	}
	r := x.run
	meta := map[string]string{"run": r.ID, "inputs": r.identities.Inputs, metaTrain: r.identities.Stages[StageTrain].Inputs}
	err = x.place.Publish(ctx, r.ID, filepath.Join(x.cfg.Runs.Path, r.Policy), meta)
	if is[withdrawnError](err) { // an attempt published it and was killed before it noted that
		r.Published, r.Status = r.ID, Unchanged
		return Stage{Action: "skipped", Text: "version " + r.ID + " was rolled back; current is " + before}, nil
	}
	if err != nil {
		return Stage{}, err
	}
	r.Published, r.Status = r.ID, Published
	text := "version " + r.ID + " is current"
	if ok && before != r.ID {
		text += ", before it " + before
	}
	if x.cfg.Publish.Keep > 0 {
		removed, err := x.place.Retain(ctx, x.cfg.Publish.Keep)
		if err != nil {
			return Stage{}, err
		}
		if len(removed) > 0 {
			text += "; removed " + strings.Join(removed, ", ")
		}
	}
	return Stage{Action: "ran", Text: text}, nil
}

// publishedBefore names the version that training with these inputs became in an earlier run,
// if the place has a current version still.
func (x *execution) publishedBefore(trained string) (string, error) {
	if x.place == nil {
		return "", nil
	}
	if _, _, ok, err := x.place.Current(); err != nil || !ok {
		return "", err
	}
	damaged := false
	for _, r := range slices.Backward(x.earlier) {
		if r.Published != "" && r.identities.Stages[StageTrain].Inputs == trained {
			return r.Published, nil
		}
		damaged = damaged || r.Status == Damaged
	}
	if !damaged {
		return "", nil
	}
	// What a damaged record does not say any more, the place may: rolled back, a version
	// must not come again.
	return x.place.Made(metaTrain, trained)
}

// handedOver is the checkpoint that a finished training hands over.
func handedOver(train string) (string, error) {
	if pipeline.IsSweep(train) {
		return filepath.EvalSymlinks(filepath.Join(train, "best"))
	}
	cfg, err := pipeline.LoadRunConfig(train)
	if err != nil {
		return "", err
	}
	link := "last"
	if cfg.RestoreBest {
		link = "best"
	}
	return filepath.EvalSymlinks(filepath.Join(train, link))
}

// writeConfig writes down every setting of the run.
func (x *execution) writeConfig(ctx context.Context) error {
	previous, sum := "", ""
	if n := len(x.earlier); n > 0 {
		previous, sum = x.earlier[n-1].path(configName), x.earlier[n-1].identities.Config
		if err := x.kept.Bring(ctx, previous); err != nil {
			return err
		}
	}
	var err error
	if x.run.Changed, err = changedKeys(previous, sum, x.named); err != nil {
		x.log.Warn("what changed since the run before is not known", "problem", err)
	}
	var text bytes.Buffer
	if err := x.named.Write(&text); err != nil {
		return err
	}
	x.run.identities.Config = sumOf(text.Bytes())
	return atomicfile.WriteFile(x.run.path(configName), func(w io.Writer) error {
		_, err := w.Write(text.Bytes())
		return err
	})
}
