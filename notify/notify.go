// Package notify tells monitoring how a run ended: a Prometheus textfile, a Pushgateway, a
// webhook. Nothing here decides about a run; what could not be told is an error to report.
//
// Addresses and headers may hold secrets. Errors name the host alone.
package notify

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// A Sample is how a run ended.
type Sample struct {
	// Job names the job; metrics carry it as the label job_name.
	Job     string
	Success bool
	// Message is one line for people: the result, or why there is none. The webhook has it.
	Message  string
	Finished time.Time
	// LastSuccess is when the job last succeeded before a failure; zero leaves that to the textfile.
	LastSuccess time.Time
	Duration    time.Duration
	// Pairs are in the cache, NewPairs were computed by this run.
	Pairs, NewPairs int64
	// Accuracy is a share of the held-out pairs, KL is in nats a token; NaN where not known.
	Accuracy, KL float64
	// GatePassed is nil where no gate was reached.
	GatePassed *bool
	// Dropped counts unusable rows of the data by reason.
	Dropped  map[string]int64
	ExitCode int
}

// Targets are who is told. What is empty is not.
type Targets struct {
	// Textfile is the path of a file for node_exporter's textfile collector, whose name ends
	// in .prom; one job has it alone.
	Textfile string
	// Pushgateway is the address of one.
	Pushgateway string
	Webhook     Webhook
}

// Webhook is an address that gets every result as JSON by POST.
type Webhook struct {
	URL string
	// Headers go with the request.
	Headers map[string]string
	// OnlyFailures leaves it alone when a run succeeds.
	OnlyFailures bool
}

// Notify tells all targets, also where one can't be told; the errors are joined. A cancelled
// ctx ends it: hand over one that outlives the run.
func Notify(ctx context.Context, to Targets, s Sample) error {
	return notify(ctx, to, s, patience)
}

func notify(ctx context.Context, to Targets, s Sample, p pauses) error {
	s.Job = text(s.Job)
	var errs []error
	if to.Textfile != "" {
		errs = append(errs, writeTextfile(to.Textfile, s))
	}
	if to.Pushgateway != "" {
		errs = append(errs, named("Pushgateway", to.Pushgateway, push(ctx, to.Pushgateway, s, p)))
	}
	if to.Webhook.URL != "" && !(s.Success && to.Webhook.OnlyFailures) {
		errs = append(errs, named("webhook", to.Webhook.URL, post(ctx, to.Webhook, s, p)))
	}
	return errors.Join(errs...)
}

// named says which target an error is of, without what may be secret in its address.
func named(what, address string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("notify: %s at %s: %w", what, host(address), err)
}
