package notify

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// quick is patience for tests: as many tries, at once.
var quick = pauses{timeout: 10 * time.Second, between: []time.Duration{0, 0, 0}}

var yes, no = true, false

// 2026-11-27 02:10:00.5 UTC; `date -u -d @1795745400` says so.
var (
	night  = time.Date(2026, 11, 27, 2, 10, 0, 5e8, time.UTC)
	done   = Sample{Job: "nightly", Success: true, Message: "published v7", Finished: night, Duration: 90 * time.Second, Pairs: 1600, NewPairs: 60, Accuracy: 0.975, KL: 0.129, GatePassed: &yes, Dropped: map[string]int64{"identical": 2, "null": 1}}
	failed = Sample{Job: "nightly", Message: "no library", Finished: night.Add(24 * time.Hour), Duration: time.Second, Accuracy: math.NaN(), KL: math.NaN(), ExitCode: 3}
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// parse reads metrics as `name{label="value"} → number` by the format's own reader.
func parse(t *testing.T, r io.Reader, format expfmt.Format) map[string]string {
	t.Helper()
	values := map[string]string{}
	dec := expfmt.NewDecoder(r, format)
	for {
		samples := expfmt.SampleDecoder{Dec: dec, Opts: &expfmt.DecodeOptions{Timestamp: 0}}
		var all model.Vector
		err := samples.Decode(&all)
		if err == io.EOF {
			return values
		}
		must(t, err)
		for _, s := range all {
			values[s.Metric.String()] = fmt.Sprint(float64(s.Value))
		}
	}
}

func textfile(t *testing.T, path string) map[string]string {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	return parse(t, f, expfmt.NewFormat(expfmt.TypeTextPlain))
}

func TestTextfile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dpo-pipe.prom")
	to := Targets{Textfile: path}
	ctx := context.Background()

	must(t, Notify(ctx, to, done))
	if d := cmp.Diff(map[string]string{
		`dpo_pipe_last_run_timestamp_seconds{job_name="nightly"}`:                "1.7957454005e+09",
		`dpo_pipe_last_success_timestamp_seconds{job_name="nightly"}`:            "1.7957454005e+09",
		`dpo_pipe_last_run_success{job_name="nightly"}`:                          "1",
		`dpo_pipe_last_run_exit_code{job_name="nightly"}`:                        "0",
		`dpo_pipe_last_run_duration_seconds{job_name="nightly"}`:                 "90",
		`dpo_pipe_last_run_pairs{job_name="nightly"}`:                            "1600",
		`dpo_pipe_last_run_new_pairs{job_name="nightly"}`:                        "60",
		`dpo_pipe_last_run_accuracy_ratio{job_name="nightly"}`:                   "0.975",
		`dpo_pipe_last_run_kl_nats{job_name="nightly"}`:                          "0.129",
		`dpo_pipe_last_run_gate_passed{job_name="nightly"}`:                      "1",
		`dpo_pipe_last_run_dropped_rows{job_name="nightly", reason="identical"}`: "2",
		`dpo_pipe_last_run_dropped_rows{job_name="nightly", reason="null"}`:      "1",
	}, textfile(t, path)); d != "" {
		t.Errorf("after a success (-want +got):\n%s", d)
	}

	for range 2 { // the second failure reads what the first left
		must(t, Notify(ctx, to, failed))
		if d := cmp.Diff(map[string]string{
			`dpo_pipe_last_run_timestamp_seconds{job_name="nightly"}`:     "1.7958318005e+09",
			`dpo_pipe_last_success_timestamp_seconds{job_name="nightly"}`: "1.7957454005e+09",
			`dpo_pipe_last_run_success{job_name="nightly"}`:               "0",
			`dpo_pipe_last_run_exit_code{job_name="nightly"}`:             "3",
			`dpo_pipe_last_run_duration_seconds{job_name="nightly"}`:      "1",
			`dpo_pipe_last_run_pairs{job_name="nightly"}`:                 "0",
			`dpo_pipe_last_run_new_pairs{job_name="nightly"}`:             "0",
		}, textfile(t, path)); d != "" {
			t.Errorf("after a failure (-want +got):\n%s", d)
		}
	}
	if names, err := os.ReadDir(filepath.Dir(path)); err != nil || len(names) != 1 {
		t.Errorf("the folder holds %v, %v", names, err)
	}
}

// TestTextfileOfAKnownSuccess has a failure whose sample knows of the last success, and a
// textfile that has another time, or none.
func TestTextfileOfAKnownSuccess(t *testing.T) {
	const metric = `dpo_pipe_last_success_timestamp_seconds{job_name="nightly"}`
	known := failed
	known.LastSuccess = time.UnixMilli(5500)
	for _, before := range []string{"", "dpo_pipe_last_succ", "# TYPE dpo_pipe_last_success_timestamp_seconds gauge\n" + metric + " 7\n"} {
		path := filepath.Join(t.TempDir(), "dpo-pipe.prom")
		must(t, os.WriteFile(path, []byte(before), 0o666))
		must(t, Notify(context.Background(), Targets{Textfile: path}, known))
		if got := textfile(t, path)[metric]; got != "5.5" {
			t.Errorf("behind %q the last success is %q, want 5.5", before, got)
		}
	}
}

// TestTextfileLeftovers writes a textfile beside those that a killed process had begun, and
// beside files of others.
func TestTextfileLeftovers(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a.prom1", "a.prom20471", "a.prom.bak", "b.prom1", "a.prom1x"} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte("half"), 0o666))
	}
	must(t, Notify(context.Background(), Targets{Textfile: filepath.Join(dir, "a.prom")}, done))
	var got []string
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if d := cmp.Diff([]string{"a.prom", "a.prom.bak", "a.prom1x", "b.prom1"}, got); d != "" {
		t.Errorf("files (-want +got):\n%s", d)
	}
}

// TestTextfileWithoutLastSuccess wants no time of a success that nothing tells of.
func TestTextfileWithoutLastSuccess(t *testing.T) {
	const gauge = "# TYPE dpo_pipe_last_success_timestamp_seconds gauge\n"
	const metric = `dpo_pipe_last_success_timestamp_seconds{job_name="nightly"}`
	for _, tc := range []struct{ name, before, want string }{
		{"none before", "", ""},
		{"other job's", gauge + "dpo_pipe_last_success_timestamp_seconds{job_name=\"weekly\"} 7\n", ""},
		{"this job's", gauge + "dpo_pipe_last_success_timestamp_seconds{job_name=\"nightly\"} 7\n", "7"},
		{"no gauge", "dpo_pipe_last_success_timestamp_seconds{job_name=\"nightly\"} 7\n", ""},
		{"damaged", "dpo_pipe_last_success_timestamp_seconds{job_na", "lost"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "dpo-pipe.prom")
			if tc.before != "" {
				must(t, os.WriteFile(path, []byte(tc.before), 0o666))
			}
			err := Notify(context.Background(), Targets{Textfile: path}, failed)
			if lost := tc.want == "lost"; (err != nil) != lost || lost && !strings.Contains(err.Error(), "last success is lost") {
				t.Errorf("error is %v", err)
			}
			got := textfile(t, path)
			if want := strings.TrimPrefix(tc.want, "lost"); got[metric] != want || got[`dpo_pipe_last_run_success{job_name="nightly"}`] != "0" {
				t.Errorf("got %v, want last success %q", got, want)
			}
		})
	}
	odd := failed
	odd.Job, odd.Dropped = "a\xff\"b\n", map[string]int64{"\xfe": 1}
	must(t, Notify(context.Background(), Targets{Textfile: filepath.Join(t.TempDir(), "x.prom")}, odd))
	if err := Notify(context.Background(), Targets{Textfile: filepath.Join(t.TempDir(), "absent", "x.prom")}, done); err == nil {
		t.Error("a textfile in no folder was written")
	}
}

// server keeps the requests that it gets and answers them with the given codes in turn, the
// last one from then on.
type server struct {
	*httptest.Server
	mu     sync.Mutex
	codes  []int
	got    []*http.Request
	bodies []string
}

func serve(t *testing.T, codes ...int) *server {
	s := &server{codes: codes}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.got, s.bodies = append(s.got, r), append(s.bodies, string(body))
		if code := s.codes[min(len(s.got), len(s.codes))-1]; code/100 == 3 {
			http.Redirect(w, r, "/elsewhere", code)
		} else {
			w.WriteHeader(code)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func TestPushgateway(t *testing.T) {
	for _, tc := range []struct {
		name, method string
		s            Sample
		want         map[string]string
	}{
		// PUT replaces the group, POST the metrics that come with it.
		{"success", http.MethodPut, done, map[string]string{
			"dpo_pipe_last_success_timestamp_seconds": "1.7957454005e+09", "dpo_pipe_last_run_success": "1",
			"dpo_pipe_last_run_accuracy_ratio": "0.975", `dpo_pipe_last_run_dropped_rows{reason="null"}`: "1",
		}},
		{"failure", http.MethodPost, failed, map[string]string{
			"dpo_pipe_last_success_timestamp_seconds": "", "dpo_pipe_last_run_success": "0",
			"dpo_pipe_last_run_accuracy_ratio": "NaN", "dpo_pipe_last_run_gate_passed": "NaN",
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := serve(t, http.StatusServiceUnavailable, http.StatusNoContent)
			must(t, notify(context.Background(), Targets{Pushgateway: s.URL}, tc.s, quick))
			if len(s.got) != 2 {
				t.Fatalf("%d requests, want one and another after 503", len(s.got))
			}
			for i, r := range s.got {
				if r.Method != tc.method || r.URL.Path != "/metrics/job/dpo-pipe/job_name/nightly" {
					t.Errorf("%s %s", r.Method, r.URL.Path)
				}
				got := parse(t, strings.NewReader(s.bodies[i]), expfmt.ResponseFormat(r.Header))
				for name, want := range tc.want {
					if got[name] != want {
						t.Errorf("%s is %q, want %q", name, got[name], want)
					}
				}
			}
		})
	}
}

func TestWebhook(t *testing.T) {
	for _, tc := range []struct {
		name string
		s    Sample
		want string
	}{
		{"success", done, `{"text":"dpo-pipe nightly: done: published v7","job":"nightly","success":true,"exit_code":0,
			"message":"published v7","finished":"2026-11-27T02:10:00.5Z","seconds":90,"pairs":1600,"new_pairs":60,
			"accuracy":0.975,"kl":0.129,"gate_passed":true,"dropped_rows":{"identical":2,"null":1}}`},
		{"failure", failed, `{"text":"dpo-pipe nightly: failed (exit code 3): no library","job":"nightly","success":false,"exit_code":3,
			"message":"no library","finished":"2026-11-28T02:10:00.5Z","seconds":1,"pairs":0,"new_pairs":0}`},
		{"gate", Sample{Job: "x", ExitCode: 5, Finished: night, Accuracy: 0.5, KL: math.Inf(1), GatePassed: &no}, `{
			"text":"dpo-pipe x: failed (exit code 5)","job":"x","success":false,"exit_code":5,
			"finished":"2026-11-27T02:10:00.5Z","seconds":0,"pairs":0,"new_pairs":0,"accuracy":0.5,"gate_passed":false}`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := serve(t, http.StatusOK)
			must(t, notify(context.Background(), Targets{Webhook: Webhook{URL: s.URL + "/hook?a=b", Headers: map[string]string{"Authorization": "Bearer x"}}}, tc.s, quick))
			r := s.got[0]
			if r.Method != http.MethodPost || r.URL.String() != "/hook?a=b" || r.Header.Get("Content-Type") != "application/json" || r.Header.Get("Authorization") != "Bearer x" {
				t.Errorf("%s %s with %v", r.Method, r.URL, r.Header)
			}
			var got, want any
			must(t, json.Unmarshal([]byte(s.bodies[0]), &got))
			must(t, json.Unmarshal([]byte(tc.want), &want))
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("body (-want +got):\n%s", d)
			}
		})
	}
	s := serve(t, http.StatusOK)
	must(t, notify(context.Background(), Targets{Webhook: Webhook{URL: s.URL, OnlyFailures: true}}, done, quick))
	must(t, notify(context.Background(), Targets{Webhook: Webhook{URL: s.URL, OnlyFailures: true}}, failed, quick))
	if len(s.got) != 1 {
		t.Errorf("%d requests of a success and a failure, want the failure's", len(s.got))
	}
}

// TestTries wants another try where it may help, four in all, and no secret in an error.
func TestTries(t *testing.T) {
	const secret = "s3cret"
	for _, tc := range []struct {
		name  string
		codes []int
		tries int
		want  string // in the error; "" means none
	}{
		{"at once", []int{200}, 1, ""},
		{"accepted", []int{202}, 1, ""},
		{"then well", []int{500, 503, 429, 200}, 4, ""},
		{"never well", []int{500}, 4, "answered 500 Internal Server Error"},
		{"refused", []int{404}, 1, "answered 404 Not Found"},
		{"forbidden", []int{401}, 1, "answered 401 Unauthorized"},
		{"redirected", []int{307}, 1, "answered 307 Temporary Redirect"},
	} {
		for _, target := range []string{"webhook", "Pushgateway"} {
			t.Run(tc.name+", "+target, func(t *testing.T) {
				s := serve(t, tc.codes...)
				address := strings.Replace(s.URL, "//", "//user:"+secret+"@", 1) + "/" + secret
				to := Targets{Pushgateway: address}
				if target == "webhook" {
					to = Targets{Webhook: Webhook{URL: address + "?token=" + secret, Headers: map[string]string{"X-Key": secret}}}
				}
				err := notify(context.Background(), to, failed, quick)
				if len(s.got) != tc.tries {
					t.Errorf("%d tries, want %d", len(s.got), tc.tries)
				}
				checkError(t, err, tc.want, target+" at "+s.URL, secret)
			})
		}
	}
}

func checkError(t *testing.T, err error, want, target, secret string) {
	t.Helper()
	switch {
	case want == "":
		must(t, err)
	case err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), target):
		t.Errorf("error is %v, want %q of %q", err, want, target)
	case strings.Contains(err.Error(), secret):
		t.Errorf("error %v holds a secret", err)
	}
}

// TestUnreachable wants every target told although others can't be, and an error for each
// of those without a secret.
func TestUnreachable(t *testing.T) {
	const secret = "s3cret"
	gone := httptest.NewServer(nil)
	gone.Close()
	stop := make(chan struct{})
	hangs := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-stop }))
	defer hangs.Close()
	defer close(stop)
	short := quick
	short.timeout = time.Millisecond
	for _, tc := range []struct {
		name, address string
		p             pauses
	}{
		{"nobody there", gone.URL + "/" + secret, quick},
		{"no answer", hangs.URL + "/" + secret, short},
		{"no address", "http://[" + secret, quick},
		{"bad port", "http://user:" + secret + "@host:" + secret, quick},
		{"no host", "http:///" + secret, quick},
		{"other scheme", "ftp://host/" + secret, quick},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "x.prom")
			err := notify(context.Background(), Targets{Textfile: path, Pushgateway: tc.address, Webhook: Webhook{URL: tc.address}}, done, tc.p)
			if err == nil || strings.Count(err.Error(), "\n") != 1 || strings.Contains(err.Error(), secret) {
				t.Errorf("error is %v, want one line for each of two and no secret", err)
			}
			if _, err := os.Stat(path); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("bad header", func(t *testing.T) {
		err := notify(context.Background(), Targets{Webhook: Webhook{URL: gone.URL, Headers: map[string]string{"X-Key": secret + "\n"}}}, done, quick)
		if err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("error is %v", err)
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		slow := pauses{timeout: time.Hour, between: []time.Duration{time.Hour}}
		if err := notify(ctx, Targets{Webhook: Webhook{URL: hangs.URL}}, done, slow); err == nil {
			t.Error("a cancelled notification succeeded")
		}
	})
}
