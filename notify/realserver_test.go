package notify

import (
	"bytes"
	"context"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/expfmt"

	"github.com/dpo-pipe/dpo-pipe/internal/servertest"
)

// onPath is the path of the first of the programs that is installed.
func onPath(t *testing.T, names ...string) string {
	t.Helper()
	for _, name := range names {
		if exe, err := exec.LookPath(name); err == nil {
			return exe
		}
	}
	t.Skipf("none of %q is installed", names)
	return ""
}

// startPushgateway runs one until the test ends, and returns its URL.
func startPushgateway(t *testing.T) string {
	t.Helper()
	exe, address := onPath(t, "pushgateway", "prometheus-pushgateway"), servertest.FreeAddress(t)
	servertest.Run(t, "the Pushgateway", exe, address, "--web.listen-address="+address)
	return "http://" + address
}

// scraped are the product's metrics as Prometheus would read them from a Pushgateway.
func scraped(t *testing.T, address string) map[string]string {
	t.Helper()
	resp, err := http.Get(address + "/metrics")
	must(t, err)
	defer resp.Body.Close()
	values := map[string]string{}
	for name, value := range parse(t, resp.Body, expfmt.ResponseFormat(resp.Header)) {
		if strings.HasPrefix(name, "dpo_pipe_") {
			values[name] = value
		}
	}
	return values
}

// TestARealPushgateway wants of a Pushgateway, after a success and after a failure, what
// node_exporter would read from the textfile; what is not known is NaN there.
func TestARealPushgateway(t *testing.T) {
	address := startPushgateway(t)
	const labels = `{instance="", job="dpo-pipe", job_name="nightly"}`
	const reason = `dpo_pipe_last_run_dropped_rows{instance="", job="dpo-pipe", job_name="nightly", reason=`
	must(t, Notify(context.Background(), Targets{Pushgateway: address}, done))
	if d := cmp.Diff(map[string]string{
		"dpo_pipe_last_run_timestamp_seconds" + labels:     "1.7957454005e+09",
		"dpo_pipe_last_success_timestamp_seconds" + labels: "1.7957454005e+09",
		"dpo_pipe_last_run_success" + labels:               "1",
		"dpo_pipe_last_run_exit_code" + labels:             "0",
		"dpo_pipe_last_run_duration_seconds" + labels:      "90",
		"dpo_pipe_last_run_pairs" + labels:                 "1600",
		"dpo_pipe_last_run_new_pairs" + labels:             "60",
		"dpo_pipe_last_run_accuracy_ratio" + labels:        "0.975",
		"dpo_pipe_last_run_kl_nats" + labels:               "0.129",
		"dpo_pipe_last_run_gate_passed" + labels:           "1",
		reason + `"identical"}`:                            "2",
		reason + `"null"}`:                                 "1",
	}, scraped(t, address)); d != "" {
		t.Errorf("after a success (-want +got):\n%s", d)
	}

	must(t, Notify(context.Background(), Targets{Pushgateway: address}, failed))
	if d := cmp.Diff(map[string]string{
		"dpo_pipe_last_run_timestamp_seconds" + labels:     "1.7958318005e+09",
		"dpo_pipe_last_success_timestamp_seconds" + labels: "1.7957454005e+09",
		"dpo_pipe_last_run_success" + labels:               "0",
		"dpo_pipe_last_run_exit_code" + labels:             "3",
		"dpo_pipe_last_run_duration_seconds" + labels:      "1",
		"dpo_pipe_last_run_pairs" + labels:                 "0",
		"dpo_pipe_last_run_new_pairs" + labels:             "0",
		"dpo_pipe_last_run_accuracy_ratio" + labels:        "NaN",
		"dpo_pipe_last_run_kl_nats" + labels:               "NaN",
		"dpo_pipe_last_run_gate_passed" + labels:           "NaN",
		reason + `""}`:                                     "NaN",
	}, scraped(t, address)); d != "" {
		t.Errorf("after a failure (-want +got):\n%s", d)
	}
}

// TestAPushgatewayThatForgot has a failure that tells an empty Pushgateway of the last success.
func TestAPushgatewayThatForgot(t *testing.T) {
	address := startPushgateway(t)
	known := failed
	known.LastSuccess = time.UnixMilli(5500)
	must(t, Notify(context.Background(), Targets{Pushgateway: address}, known))
	const metric = `dpo_pipe_last_success_timestamp_seconds{instance="", job="dpo-pipe", job_name="nightly"}`
	if got := scraped(t, address)[metric]; got != "5.5" {
		t.Errorf("the last success is %q, want 5.5", got)
	}
}

// TestOddJobsOnARealPushgateway has names that a URL or a label does not take as they are, and
// a failure that nothing went before.
func TestOddJobsOnARealPushgateway(t *testing.T) {
	address := startPushgateway(t)
	for name, label := range map[string]string{
		"team/nightly": "team/nightly", "größer 1%": "größer 1%", "a+b c": "a+b c", "a\"b\n": `a\"b\n`, "a\xffb": "a\uFFFDb", "": "",
	} {
		odd := failed
		odd.Job, odd.Dropped = name, map[string]int64{"\xfe": 1}
		if err := Notify(context.Background(), Targets{Pushgateway: address}, odd); err != nil {
			t.Errorf("%q: %v", name, err)
			continue
		}
		got := scraped(t, address)
		if want := `dpo_pipe_last_run_exit_code{instance="", job="dpo-pipe", job_name="` + label + `"}`; got[want] != "3" {
			t.Errorf("%q: no %s among %v", name, want, got)
		}
	}
}

// TestPromtool has Prometheus' own tool read textfiles.
func TestPromtool(t *testing.T) {
	exe := onPath(t, "promtool")
	for _, s := range []Sample{done, failed} {
		path := filepath.Join(t.TempDir(), "dpo-pipe.prom")
		must(t, Notify(context.Background(), Targets{Textfile: path}, s))
		text, err := os.ReadFile(path)
		must(t, err)
		check := exec.Command(exe, "check", "metrics")
		check.Stdin = bytes.NewReader(text)
		if out, err := check.CombinedOutput(); err != nil || len(out) != 0 {
			t.Errorf("promtool: %v\n%s\nof\n%s", err, out, text)
		}
	}
}
