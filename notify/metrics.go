package notify

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	pushgateway "github.com/prometheus/client_golang/prometheus/push"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// lastSuccess is the metric that outlives failed runs: the time since is what to alert on.
const lastSuccess = "dpo_pipe_last_success_timestamp_seconds"

// jobLabel is not job, which Prometheus sets itself.
const jobLabel = "job_name"

// metrics are the gauges of a sample. What is not known is absent, or NaN where a gauge must
// replace an earlier one.
func metrics(s Sample, successAt float64, unknown bool) *prometheus.Registry {
	r := prometheus.NewRegistry()
	gauge := func(name, help string, x float64) {
		if !unknown && math.IsNaN(x) {
			return
		}
		g := prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
		g.Set(x)
		r.MustRegister(g)
	}
	gauge("dpo_pipe_last_run_timestamp_seconds", "When the last run ended.", seconds(s.Finished))
	gauge("dpo_pipe_last_run_success", "Whether the last run succeeded.", truth(s.Success))
	gauge("dpo_pipe_last_run_exit_code", "Exit code of the last run.", float64(s.ExitCode))
	gauge("dpo_pipe_last_run_duration_seconds", "How long the last run took.", s.Duration.Seconds())
	gauge("dpo_pipe_last_run_pairs", "Preference pairs in the cache.", float64(s.Pairs))
	gauge("dpo_pipe_last_run_new_pairs", "Preference pairs that the last run computed.", float64(s.NewPairs))
	gauge("dpo_pipe_last_run_accuracy_ratio", "Accuracy on held-out pairs.", s.Accuracy)
	gauge("dpo_pipe_last_run_kl_nats", "KL divergence from the reference, nats a token.", s.KL)
	passed := math.NaN()
	if s.GatePassed != nil {
		passed = truth(*s.GatePassed)
	}
	gauge("dpo_pipe_last_run_gate_passed", "Whether the policy met its gates.", passed)
	if !math.IsNaN(successAt) {
		gauge(lastSuccess, "When a run last succeeded.", successAt)
	}
	dropped := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "dpo_pipe_last_run_dropped_rows", Help: "Unusable rows of the data, by reason.",
	}, []string{"reason"})
	for reason, n := range s.Dropped {
		dropped.WithLabelValues(text(reason)).Set(float64(n))
	}
	if unknown && len(s.Dropped) == 0 {
		dropped.WithLabelValues("").Set(math.NaN())
	}
	r.MustRegister(dropped)
	return r
}

// text is s as a label may have it.
func text(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// writeTextfile replaces the file at path. Where a failed run's sample does not know of the last
// success, the time stays that the file has; where that can't be read, the file is written without
// and the error says so.
func writeTextfile(path string, s Sample) error {
	at, lost := seconds(s.Finished), error(nil)
	switch {
	case s.Success:
	case !s.LastSuccess.IsZero():
		at = seconds(s.LastSuccess)
	default:
		at, lost = readSuccess(path, s.Job)
	}
	labelled := prometheus.NewRegistry()
	prometheus.WrapRegistererWith(prometheus.Labels{jobLabel: s.Job}, labelled).MustRegister(metrics(s, at, false))
	if err := errors.Join(removeLeft(path), prometheus.WriteToTextfile(path, labelled)); err != nil {
		return errors.Join(lost, fmt.Errorf("notify: textfile %q: %w", path, err))
	}
	return lost
}

// removeLeft removes what killed processes left beside a textfile: WriteToTextfile begins with
// a file whose name has digits behind path's.
func removeLeft(path string) error {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return err
	}
	for _, e := range entries {
		digits, found := strings.CutPrefix(e.Name(), filepath.Base(path))
		if !found || digits == "" || strings.Trim(digits, "0123456789") != "" {
			continue
		}
		if err := os.Remove(filepath.Join(filepath.Dir(path), e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// readSuccess is when a job last succeeded by its textfile, NaN where that does not say.
func readSuccess(path, job string) (float64, error) {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return math.NaN(), nil
	}
	if err != nil {
		return math.NaN(), fmt.Errorf("notify: textfile: the time of the last success is lost: %w", err)
	}
	defer file.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(file)
	if err != nil {
		return math.NaN(), fmt.Errorf("notify: textfile %q: the time of the last success is lost: %w", path, err)
	}
	for _, m := range families[lastSuccess].GetMetric() {
		for _, l := range m.GetLabel() {
			if l.GetName() == jobLabel && l.GetValue() == job && m.Gauge != nil {
				return m.GetGauge().GetValue(), nil
			}
		}
	}
	return math.NaN(), nil
}

// groupPath begins the path of a request to a Pushgateway behind the address's own.
const groupPath = "/metrics/job/dpo-pipe/"

// spaced sends requests of package push, which writes a space of a job's name as a plus: in a
// path that is a plus.
type spaced struct{ sender }

// Do implements push.HTTPDoer.
func (s spaced) Do(req *http.Request) (*http.Response, error) {
	before, group, found := strings.Cut(req.URL.EscapedPath(), groupPath)
	if found && strings.Contains(group, "+") {
		raw := before + groupPath + strings.ReplaceAll(group, "+", "%20")
		path, err := url.PathUnescape(raw)
		if err != nil {
			return nil, err
		}
		req.URL.Path, req.URL.RawPath = path, raw
	}
	return s.sender.Do(req)
}

// push sends a sample to a Pushgateway. A success replaces the job's metrics, a failure those
// that it has, so that the time of the last success stays where the sample does not know it.
func push(ctx context.Context, address string, s Sample, p pauses) error {
	if err := checkAddress(address); err != nil {
		return err
	}
	at := math.NaN()
	switch {
	case s.Success:
		at = seconds(s.Finished)
	case !s.LastSuccess.IsZero():
		at = seconds(s.LastSuccess)
	}
	pusher := pushgateway.New(address, "dpo-pipe").Grouping(jobLabel, s.Job).Client(spaced{sender{p}}).Gatherer(metrics(s, at, !s.Success))
	if s.Success {
		return bare(pusher.PushContext(ctx))
	}
	return bare(pusher.AddContext(ctx))
}
