package pipeline

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protowire"
)

// A run that died and was resumed has every figure of metrics.jsonl in its event
// file, each step once.
func TestEventsAreTheMetrics(t *testing.T) {
	w := newWorld(t)
	cfg := w.trainConfig(w.cache(20))
	cfg.EvalEvery = 2
	interrupt(t, cfg, 5, true)
	cfg.Resume = true
	_, err := Train(context.Background(), cfg, gonumEngine, nil)
	must(t, err)
	var want []string
	must(t, eachMetrics(filepath.Join(cfg.Out, metricsName), func(line Values) error {
		for _, v := range line {
			if v.Name != "step" && v.Name != "epoch" {
				want = append(want, point(line.Get("step"), v.Name, float32(v.Value)))
			}
		}
		return nil
	}))
	data, err := os.ReadFile(filepath.Join(cfg.Out, eventsName))
	must(t, err)
	got := points(t, data)
	if len(got) == 0 {
		t.Fatal("no curve")
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events differ from metrics.jsonl (-want +got):\n%s", diff)
	}
	seen := map[string]bool{}
	for _, p := range got {
		if seen[p] {
			t.Errorf("twice: %s", p)
		}
		seen[p] = true
	}
}

func TestTornMetricsAreNoPoints(t *testing.T) {
	path := filepath.Join(t.TempDir(), metricsName)
	must(t, os.WriteFile(path, []byte("{\"step\":1,\"loss\":null}\nnonsense\n{\"loss\":3}\n{\"step\":2,\"lo"), 0o666))
	e, err := openEvents(path)
	must(t, err)
	must(t, e.f.Close())
	data, err := os.ReadFile(filepath.Join(filepath.Dir(path), eventsName))
	must(t, err)
	if diff := cmp.Diff([]string{point(1, "loss", float32(math.NaN()))}, points(t, data)); diff != "" {
		t.Error(diff)
	}
}

func point(step float64, tag string, value float32) string {
	return fmt.Sprintf("%g %s %v", step, tag, value)
}

// points reads an event file.
func points(t *testing.T, data []byte) (out []string) {
	t.Helper()
	for len(data) > 0 {
		n := binary.LittleEndian.Uint64(data)
		event := fields(t, data[12:12+n])
		data = data[12+n+4:]
		for _, summary := range event[5] {
			for _, value := range fields(t, summary.bytes)[1] {
				f := fields(t, value.bytes)
				out = append(out, point(float64(event[2][0].number), string(f[1][0].bytes), math.Float32frombits(uint32(f[2][0].number))))
			}
		}
	}
	return out
}

type field struct {
	number uint64
	bytes  []byte
}

// fields reads a protobuf message.
func fields(t *testing.T, b []byte) map[protowire.Number][]field {
	t.Helper()
	m := map[protowire.Number][]field{}
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		b = b[max(n, 0):]
		var f field
		switch typ {
		case protowire.VarintType:
			f.number, n = protowire.ConsumeVarint(b)
		case protowire.Fixed32Type:
			var x uint32
			x, n = protowire.ConsumeFixed32(b)
			f.number = uint64(x)
		case protowire.Fixed64Type:
			f.number, n = protowire.ConsumeFixed64(b)
		case protowire.BytesType:
			f.bytes, n = protowire.ConsumeBytes(b)
		}
		if n <= 0 {
			t.Fatalf("field %d is cut short", num)
		}
		m[num] = append(m[num], f)
		b = b[n:]
	}
	return m
}
