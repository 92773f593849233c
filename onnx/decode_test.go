package onnx

import (
	"bytes"
	"errors"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// sample is a model that uses every kind of attribute, a nested graph and, at
// each level, a field this package does not know.
func sample() *Model {
	unknown := protowire.AppendString(protowire.AppendTag(nil, 10, protowire.BytesType), "documentation")
	inner := &Graph{Name: "then", extra: unknown}
	inner.AddInitializer(Float32Tensor("c", []float32{1, 2}, 2))
	inner.Add("Identity", []string{"c"}, []string{"d"})
	inner.AddOutput("d", Float32, Fixed(2))

	m := NewModel("sample", Opset{Version: 17}, Opset{Domain: "com.microsoft", Version: 1})
	g := m.Graph
	g.AddInput("x", Float32, Free("N"), Fixed(2))
	g.AddOutput("y", Float32, Free("N"), Fixed(2))
	g.AddInitializer(Float32Tensor("w", []float32{1, 2, 3, 4}, 2, 2))
	g.AddInitializer(Int64Tensor("s", []int64{-1}))
	n := g.Add("Odd", []string{"x", "", "w"}, []string{"y"}, Int("i", -3), Float("f", 1.5), Str("s", "text"),
		Ints("is", 1, -2), Floats("fs", 0.5, -0.5), TensorAttr("t", Int32Tensor("", []int32{7}, 1)), GraphAttr("g", inner),
		&Attr{Name: "ss", Type: AttrStrings, Strings: [][]byte{[]byte("a"), {}}}).In("com.microsoft")
	n.extra = protowire.AppendString(protowire.AppendTag(nil, 6, protowire.BytesType), "node doc")
	m.extra = append(m.extra, protowire.AppendString(protowire.AppendTag(nil, 25, protowire.BytesType), "")...)
	return m
}

func marshal(t *testing.T, m *Model) []byte {
	t.Helper()
	b, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestRoundTrip(t *testing.T) {
	first := marshal(t, sample())
	m, err := Parse(first)
	if err != nil {
		t.Fatal(err)
	}
	if second := marshal(t, m); !bytes.Equal(first, second) {
		t.Errorf("%d bytes became %d others", len(first), len(second))
	}
	n := m.Graph.Nodes[0]
	if n.Int("i", 0) != -3 || n.Float("f", 0) != 1.5 || string(n.Attr("s").S) != "text" || n.Attr("ss").Strings[1] == nil {
		t.Errorf("attributes read back wrong: %+v", n)
	}
	if got := m.Graph.Input("x").Shape; len(got) != 2 || got[0] != Free("N") || got[1] != Fixed(2) {
		t.Errorf("shape of x is %v", got)
	}
	if v, err := m.Graph.Initializer("s").ints(); err != nil || v[0] != -1 {
		t.Errorf("s is %v, %v", v, err)
	}
}

// TestTruncated cuts a model at every byte: it is refused with a place, or, where the cut
// falls between fields, is a shorter model; it never panics.
func TestTruncated(t *testing.T) {
	b := marshal(t, sample())
	for n := range b {
		m, err := Parse(b[:n])
		var bad *FormatError
		switch {
		case err == nil:
			marshal(t, m)
		case m != nil || !errors.As(err, &bad) || bad.Offset < 0 || bad.Offset > int64(n):
			t.Fatalf("cut at %d: model %v, error %v", n, m, err)
		}
	}
}

// survey does with a model what a command would; it must not panic.
func survey(t *testing.T, m *Model) {
	t.Helper()
	_ = m.Graph.tensors(func(x *Tensor) error { _, err := x.Bytes(); return err })
	_, _ = m.IO()
	h, err := m.FindHead()
	if err != nil {
		return
	}
	if w, _, err := h.Dense(); err == nil {
		if _, err := m.EditHead(h, Edit{Weight: w}); err != nil && !h.Quantized && len(h.branches) == 0 {
			t.Fatal(err)
		}
	}
	b, err := m.Backbone(h)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Parse(marshal(t, b)); err != nil {
		t.Fatal(err)
	}
}

// tails are small models with heads of each kind.
func tails() []*Model {
	return []*Model{
		tail(func(g *Graph) {
			chain(g, []string{"MatMul", "·", "w"}, []string{"Add", "·", "b"}, []string{"Tanh", "·"})
		}),
		tail(func(g *Graph) {
			g.AddInitializer(NewTensor("q", Uint8, []int64{2, 3}, []byte{1, 2, 3, 4, 5, 6}))
			g.AddInitializer(Float32Tensor("s", []float32{1, 2, 3}, 3))
			g.Add("DequantizeLinear", []string{"q", "s"}, []string{"dq"}, Int("axis", 0), Int("block_size", 2))
			g.Add("MatMul", []string{"h", "dq"}, []string{"logits"})
		}),
		tail(func(g *Graph) {
			g.AddInitializer(NewTensor("q", Uint8, []int64{3, 1, 8}, make([]byte, 24)))
			g.AddInitializer(Float32Tensor("s", []float32{2, 2, 1}, 3))
			g.Add("MatMulNBits", []string{"h", "q", "s"}, []string{"logits"}, Int("K", 2), Int("N", 3), Int("block_size", 16))
		}),
	}
}

// TestMutated changes each byte of small models in a few ways: no panic, no huge
// allocation, and what is still a model can be split.
func TestMutated(t *testing.T) {
	for _, m := range tails() {
		whole := marshal(t, m)
		for i := range whole {
			for _, to := range []byte{0, 1, 0x7f, 0xff, whole[i] + 1, whole[i] ^ 0x80} {
				b := bytes.Clone(whole)
				b[i] = to
				if m, err := Parse(b); err == nil {
					survey(t, m)
				}
			}
		}
	}
}

// FuzzParse: what is accepted encodes to bytes that are accepted and encode to
// themselves, and can be searched for a head and split without a panic.
func FuzzParse(f *testing.F) {
	for _, m := range append(tails(), sample()) {
		b, err := m.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Parse(b)
		if err != nil {
			if m != nil {
				t.Fatal("a model beside an error")
			}
			return
		}
		survey(t, m)
		first := marshal(t, m)
		again, err := Parse(first)
		if err != nil {
			t.Fatal(err)
		}
		if second := marshal(t, again); !bytes.Equal(first, second) {
			t.Fatalf("%q became %q", first, second)
		}
	})
}
