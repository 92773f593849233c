package main

import (
	"context"
	"log/slog"
	"math"
	"time"

	"github.com/dpo-pipe/dpo-pipe/job"
	"github.com/dpo-pipe/dpo-pipe/notify"
)

// tellTime bounds how long the end of a run waits for those who are told of it, hurriedTime
// that of one that is to end at once.
const (
	tellTime    = time.Minute
	hurriedTime = 5 * time.Second
)

// tell sends how a run ended to whom the job file names. What could not be told is logged, and
// changes no exit code.
func (a *app) tell(ctx context.Context, cfg *job.Config, r *job.Result, runErr error, log *slog.Logger) {
	for _, key := range cfg.Notify.Lost() {
		log.Warn("a secret is not known: the record of a run does not keep it", "key", key)
	}
	sample := sampleOf(cfg, r)
	sample.Success = runErr == nil
	patience := tellTime
	if runErr != nil {
		sample.ExitCode, _ = classify(runErr, advice{})
		sample.Message = runErr.Error()
		if at, err := job.LastSuccess(a.at.runsHere(cfg.Runs.Path)); err == nil { // else the textfile may know
			sample.LastSuccess = at
		}
	}
	if ctx.Err() != nil { // a signal is to be told too
		sample.ExitCode, patience = exitInterrupted, hurriedTime
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	if err := notify.Notify(ctx, targetsOf(&cfg.Notify), sample); err != nil {
		log.Error("not told", "error", err)
	}
}

func targetsOf(n *job.Notify) notify.Targets {
	headers := map[string]string{}
	for name, value := range n.Webhook.Headers {
		headers[name] = value.Reveal()
	}
	return notify.Targets{
		Textfile: n.Textfile, Pushgateway: n.Push.Reveal(),
		Webhook: notify.Webhook{URL: n.Webhook.URL.Reveal(), Headers: headers, OnlyFailures: n.Webhook.OnlyFailures},
	}
}

// sampleOf is what a run's result says of it.
func sampleOf(cfg *job.Config, r *job.Result) notify.Sample {
	s := notify.Sample{
		Job: cfg.Name, Message: string(r.Status), Finished: r.Finished, Duration: time.Duration(r.Seconds * float64(time.Second)),
		Pairs: r.Pairs, NewPairs: r.NewPairs, Accuracy: math.NaN(), KL: math.NaN(), Dropped: r.DroppedRows,
	}
	if s.Finished.IsZero() { // it ended before it had a record
		s.Finished = time.Now()
	}
	if len(r.Metrics) > 0 {
		s.Accuracy, s.KL = r.Metrics.Get(cfg.Gates.Accuracy), r.Metrics.Get("kl")
	}
	if len(r.Gates) > 0 {
		met := true
		for _, g := range r.Gates {
			met = met && g.Met
		}
		s.GatePassed = &met
	}
	return s
}
