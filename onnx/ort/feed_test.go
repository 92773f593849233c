//go:build cgo

package ort

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/dpo-pipe/dpo-pipe/onnx"
	ortgo "github.com/yalue/onnxruntime_go"
)

// TestFeederFillsEveryInput runs a graph that gives each input back as a row of float32.
func TestFeederFillsEveryInput(t *testing.T) {
	r := openRuntime(t)
	one, rows, cols, both := onnx.Fixed(1), onnx.Free("B"), onnx.Free("T"), onnx.Free("P+T")
	padded := newBatch([][]int32{{7, 8, 9}, {5}})
	padded.keep = 2
	cached := newBatch([][]int32{{7}})
	cached.past, cached.keep = 2, 1
	uneven := newBatch([][]int32{{7}, {5, 6}})
	uneven.past, uneven.pasts = 2, []int{2, 1}
	for _, c := range []struct {
		name  string
		dt    onnx.DType
		shape []onnx.Dim
		set   func(*onnx.IO, onnx.Port)
		batch *batch
		want  []float32
	}{
		{"input_ids", onnx.Int64, []onnx.Dim{rows, cols}, func(io *onnx.IO, p onnx.Port) { io.InputIDs = p }, padded, []float32{7, 8, 9, 5, 0, 0}},
		{"input_ids", onnx.Int32, []onnx.Dim{rows, cols}, func(io *onnx.IO, p onnx.Port) { io.InputIDs = p }, padded, []float32{7, 8, 9, 5, 0, 0}},
		{"attention_mask", onnx.Int64, []onnx.Dim{rows, both}, func(io *onnx.IO, p onnx.Port) { io.AttentionMask = p }, padded, []float32{1, 1, 1, 1, 0, 0}},
		{"attention_mask", onnx.Int32, []onnx.Dim{rows, both}, func(io *onnx.IO, p onnx.Port) { io.AttentionMask = p }, cached, []float32{1, 1, 1}},
		{"position_ids", onnx.Int64, []onnx.Dim{rows, cols}, func(io *onnx.IO, p onnx.Port) { io.PositionIDs = p }, padded, []float32{0, 1, 2, 0, 0, 0}},
		{"attention_mask", onnx.Int64, []onnx.Dim{rows, both}, func(io *onnx.IO, p onnx.Port) { io.AttentionMask = p }, uneven, []float32{1, 1, 1, 0, 0, 1, 1, 1}},
		{"position_ids", onnx.Int32, []onnx.Dim{rows, cols}, func(io *onnx.IO, p onnx.Port) { io.PositionIDs = p }, uneven, []float32{2, 2, 1, 2}},
		{"position_ids", onnx.Int64, []onnx.Dim{rows, cols}, func(io *onnx.IO, p onnx.Port) { io.PositionIDs = p }, cached, []float32{2}},
		{"num_logits_to_keep", onnx.Int64, []onnx.Dim{}, func(io *onnx.IO, p onnx.Port) { io.KeepLogits = p }, padded, []float32{2}},
		{"num_logits_to_keep", onnx.Int32, []onnx.Dim{}, func(io *onnx.IO, p onnx.Port) { io.KeepLogits = p }, padded, []float32{2}},
		{"logits_to_keep", onnx.Int64, []onnx.Dim{one}, func(io *onnx.IO, p onnx.Port) { io.KeepLogits = p }, padded, []float32{2}},
		{"logits_to_keep", onnx.Int32, []onnx.Dim{one}, func(io *onnx.IO, p onnx.Port) { io.KeepLogits = p }, cached, []float32{1}},
		{"use_cache_branch", onnx.Bool, []onnx.Dim{one}, func(io *onnx.IO, p onnx.Port) { io.UseCache = p }, padded, []float32{0}},
		{"use_cache_branch", onnx.Bool, []onnx.Dim{one}, func(io *onnx.IO, p onnx.Port) { io.UseCache = p }, cached, []float32{1}},
		{"use_cache_branch", onnx.Bool, []onnx.Dim{}, func(io *onnx.IO, p onnx.Port) { io.UseCache = p }, cached, []float32{1}},
	} {
		t.Run(fmt.Sprintf("%s/%s/rank=%d/past=%d", c.name, c.dt, len(c.shape), c.batch.past), func(t *testing.T) {
			m := onnx.NewModel("echo", onnx.Opset{Version: engineOpset})
			m.Graph.AddInput(c.name, c.dt, c.shape...)
			add(m.Graph, "wide", "Cast", []string{c.name}, onnx.Int("to", int64(onnx.Float32)))
			flat := m.Graph.AddInitializer(onnx.Int64Tensor("flat", []int64{-1}, 1))
			add(m.Graph, "back", "Reshape", []string{"wide", flat})
			m.Graph.AddOutput("back", onnx.Float32, onnx.Free("n"))
			// An input that the graph has lost is not fed.
			io := &onnx.IO{Cache: []onnx.CachePort{{Name: "past_key_values.0.key", DType: onnx.Float32, Heads: 1, HeadDim: 1}}}
			c.set(io, onnx.Port{Name: c.name, DType: c.dt, Rank: len(c.shape)})
			if got := echo(t, r, m, newFeeder(m.Graph, io), c.batch); fmt.Sprint(got) != fmt.Sprint(c.want) {
				t.Errorf("%s is %v, want %v", c.name, got, c.want)
			}
		})
	}
}

// echo runs a graph of one output, whose shape ONNX Runtime finds.
func echo(t *testing.T, r *Runtime, m *onnx.Model, f *feeder, b *batch) []float32 {
	t.Helper()
	s, err := r.newSession(m, f.names, []string{"back"}, DefaultOptions())
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	var vs values
	defer vs.destroy()
	out := []ortgo.Value{nil}
	in := f.inputs(&vs, b)
	if vs.err != nil {
		t.Fatal(vs.err)
	}
	if err := s.run(t.Context(), in, out); err != nil {
		t.Fatal(err)
	}
	got := vs.keep(out[0], nil).(*ortgo.Tensor[float32])
	return append([]float32(nil), got.GetData()...)
}

// TestFloatsAreWidened reads bit patterns whose values the formats define.
func TestFloatsAreWidened(t *testing.T) {
	inf := float32(math.Inf(1))
	for _, c := range []struct {
		dt   onnx.DType
		data []byte
		want []float32
	}{
		{onnx.Float16, bytesOf([]uint16{0x3c00, 0xc000, 0x0001, 0x7bff, 0x7c00}), []float32{1, -2, 0x1p-24, 65504, inf}},
		{onnx.BFloat16, bytesOf([]uint16{0x3f80, 0xc000, 0x0001, 0x7f7f, 0x7f80}), []float32{1, -2, 0x1p-133, 0x1.fep127, inf}},
		{onnx.Float32, bytesOf([]float32{1, -2, 0x1p-149, 3, inf}), []float32{1, -2, 0x1p-149, 3, inf}},
		{onnx.Float64, bytesOf([]float64{1, -2, 0x1p-149, 3, math.Inf(1)}), []float32{1, -2, 0x1p-149, 3, inf}},
	} {
		f := floats{c.dt, c.data}
		got := make([]float32, len(c.want))
		f.read(got, 0)
		if fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%s: %v, want %v", c.dt, got, c.want)
		}
		f.read(got[:2], 3)
		if got[0] != c.want[3] || got[1] != c.want[4] {
			t.Errorf("%s from 3 on: %v, want %v", c.dt, got[:2], c.want[3:])
		}
		if x, bad := firstNonFinite(c.want); !bad || x != inf {
			t.Errorf("%s: first non-finite is %v, %t, want +Inf", c.dt, x, bad)
		}
		if n := len(f.resize(7)); int64(n) != 7*c.dt.Bits()/8 {
			t.Errorf("%s: 7 elements take %d bytes", c.dt, n)
		}
	}
}

func TestTensorsAreCheckedAgainstTheirMemory(t *testing.T) {
	openRuntime(t)
	var vs values
	defer vs.destroy()
	vs.float32s(make([]float32, 5), 2, 3)
	if vs.err == nil || !strings.Contains(vs.err.Error(), "float32 tensor [2 3] over 20 bytes, want 24") {
		t.Errorf("too little memory: error is %v", vs.err)
	}
	first := vs.err
	vs.float32s(nil, -1)
	if vs.err != first {
		t.Errorf("a second error took the place of the first: %v", vs.err)
	}
}
