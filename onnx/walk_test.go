package onnx

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// A tail is the end of a decoder, V 3 and D 2, to be filled in after the value h,
// which a Relu of the input x computes. The matrix w is [D,V].
func tail(build func(g *Graph)) *Model {
	m := NewModel("tail", Opset{Version: 17})
	g := m.Graph
	g.AddInput("x", Float32, Free("B"), Free("T"), Fixed(2))
	g.AddInput("input_ids", Int64, Free("B"), Free("T"))
	g.AddInitializer(Float32Tensor("w", []float32{1, 2, 3, 4, 5, 6}, 2, 3))
	g.AddInitializer(Float32Tensor("wt", []float32{1, 4, 2, 5, 3, 6}, 3, 2))
	g.AddInitializer(Float32Tensor("two", []float32{2}))
	g.AddInitializer(Float32Tensor("eight", []float32{8}, 1))
	g.AddInitializer(Float32Tensor("b", []float32{1, 2, 3}, 3))
	g.AddInitializer(Int64Tensor("i1", []int64{1}, 1))
	g.AddInitializer(Int64Tensor("i2", []int64{2}, 1))
	g.AddInitializer(Int64Tensor("i0", []int64{0}, 1))
	g.AddInitializer(Int64Tensor("flat", []int64{-1, 2}, 2))
	g.AddInitializer(Int64Tensor("back", []int64{1, -1, 3}, 3))
	g.AddInitializer(Int64Tensor("far", []int64{math.MaxInt64}, 1))
	g.Add("Relu", []string{"x"}, []string{"h"})
	build(g)
	g.AddOutput("logits", Float32, Free("B"), Free("T"), Fixed(3))
	return m
}

// chain adds nodes, each taking the value before it where its input is "·".
func chain(g *Graph, nodes ...[]string) {
	value := "h"
	for i, n := range nodes {
		out := n[0] + string(rune('0'+i))
		if i == len(nodes)-1 {
			out = "logits"
		}
		in := replaced(n[1:], "·", value)
		g.Add(n[0], in, []string{out})
		value = out
	}
}

func TestFindHead(t *testing.T) {
	matmul := []string{"MatMul", "·", "w"}
	for _, c := range []struct {
		name           string
		nodes          [][]string
		scale, softcap float32
		bias           []float32
	}{
		{"plain", [][]string{matmul}, 1, 0, nil},
		{"identity", [][]string{matmul, {"Identity", "·"}}, 1, 0, nil},
		{"bias", [][]string{matmul, {"Add", "·", "b"}}, 1, 0, []float32{1, 2, 3}},
		{"bias first", [][]string{matmul, {"Add", "b", "·"}}, 1, 0, []float32{1, 2, 3}},
		{"scale then bias", [][]string{matmul, {"Mul", "·", "two"}, {"Add", "·", "b"}}, 2, 0, []float32{.5, 1, 1.5}},
		{"bias then scale", [][]string{matmul, {"Add", "·", "b"}, {"Div", "·", "two"}}, .5, 0, []float32{1, 2, 3}},
		{"one bias for all", [][]string{matmul, {"Add", "·", "two"}}, 1, 0, []float32{2, 2, 2}},
		{"softcap", [][]string{matmul, {"Div", "·", "eight"}, {"Tanh", "·"}, {"Mul", "·", "eight"}}, 1, 8, nil},
		{"tanh alone", [][]string{matmul, {"Tanh", "·"}}, 1, 1, nil},
		// 8·tanh(2·x/8) is 2·x capped at 8.
		{"scale and softcap", [][]string{matmul, {"Mul", "·", "two"}, {"Div", "·", "eight"}, {"Tanh", "·"}, {"Mul", "eight", "·"}}, 2, 8, nil},
		{"last positions", [][]string{{"Slice", "·", "i1", "far", "i1"}, matmul}, 1, 0, nil},
		{"all of an axis", [][]string{{"Slice", "·", "i0", "far", "i2"}, {"Slice", "·", "i1", "far", "i1"}, matmul}, 1, 0, nil},
		{"positions after the product", [][]string{matmul, {"Slice", "·", "i1", "far", "i1"}}, 1, 0, nil},
		{"rows", [][]string{{"Reshape", "·", "flat"}, matmul, {"Reshape", "·", "back"}}, 1, 0, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, err := tail(func(g *Graph) { chain(g, c.nodes...) }).FindHead()
			if err != nil {
				t.Fatal(err)
			}
			w, bias, err := h.Dense()
			if err != nil {
				t.Fatal(err)
			}
			if h.Hidden != "h" || h.V != 3 || h.D != 2 || h.Scale != c.scale || h.Softcap != c.softcap {
				t.Errorf("head is %+v", h)
			}
			if !slices.Equal(w, []float32{1, 4, 2, 5, 3, 6}) || !slices.Equal(bias, c.bias) {
				t.Errorf("weight %v, bias %v, want bias %v", w, bias, c.bias)
			}
		})
	}
}

// TestGemm: transB, alpha and beta are folded into matrix and bias.
func TestGemm(t *testing.T) {
	m := tail(func(g *Graph) {
		g.Add("Reshape", []string{"h", "flat"}, []string{"rows"})
		g.Add("Gemm", []string{"rows", "wt", "b"}, []string{"z"}, Int("transB", 1), Float("alpha", 2), Float("beta", 3))
		g.Add("Reshape", []string{"z", "back"}, []string{"logits"})
	})
	h, err := m.FindHead()
	if err != nil {
		t.Fatal(err)
	}
	w, bias, err := h.Dense()
	if err != nil || h.Hidden != "h" || !slices.Equal(w, []float32{2, 8, 4, 10, 6, 12}) || !slices.Equal(bias, []float32{3, 6, 9}) {
		t.Errorf("head %+v, weight %v, bias %v, %v", h, w, bias, err)
	}
	// Writing the same matrix back leaves the stored one as it was.
	same, err := m.EditHead(h, Edit{Weight: w})
	if err != nil {
		t.Fatal(err)
	}
	if v, err := same.Graph.Initializer("wt").floats(); err != nil || !slices.Equal(v, []float32{1, 4, 2, 5, 3, 6}) {
		t.Errorf("stored matrix is %v, %v", v, err)
	}
}

// TestScaleBehindCast: tools that convert a model to float16 leave casts on constants.
func TestScaleBehindCast(t *testing.T) {
	h, err := tail(func(g *Graph) {
		g.Add("MatMul", []string{"h", "w"}, []string{"z"})
		g.Add("Constant", nil, []string{"c"}, Float("value_float", 4))
		g.Add("Cast", []string{"c"}, []string{"c32"}, Int("to", int64(Float32)))
		g.Add("Div", []string{"z", "c32"}, []string{"logits"})
	}).FindHead()
	if err != nil || h.Scale != 0.25 {
		t.Errorf("head %+v, %v", h, err)
	}
}

func TestHeadRefused(t *testing.T) {
	matmul := []string{"MatMul", "·", "w"}
	for _, c := range []struct {
		name   string
		nodes  [][]string
		reason string
		chain  string
	}{
		{"softmax", [][]string{matmul, {"Softmax", "·"}}, `Softmax "logits/Softmax" is neither`, "Softmax"},
		{"two computed", [][]string{matmul, {"Add", "·", "·"}}, "combines two computed values", "Add"},
		{"computed matrix", [][]string{{"MatMul", "·", "x"}}, `the matrix "x" is not stored`, "MatMul"},
		{"odd way to the matrix", [][]string{{"Neg", "w"}, {"MatMul", "h", "·"}}, "is on the way to the matrix", "MatMul Neg"},
		{"slice of the vocabulary", [][]string{matmul, {"Slice", "·", "i0", "i2", "i2"}}, "picks from the vocabulary", "Slice"},
		{"bias of another size", [][]string{matmul, {"Add", "·", "flatF"}}, "bias has 2 values, want 3", "Add MatMul"},
		{"after the softcap", [][]string{matmul, {"Tanh", "·"}, {"Add", "·", "b"}}, "add after the softcap", "Add Tanh MatMul"},
		{"scale 0", [][]string{matmul, {"Mul", "·", "zero"}}, "want a scale other than 0", "Mul MatMul"},
		{"no node", [][]string{{"Identity", "x"}}, `value "x" is computed by no node`, "Identity"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := tail(func(g *Graph) {
				g.AddInitializer(Float32Tensor("flatF", []float32{1, 2}, 2))
				g.AddInitializer(Float32Tensor("zero", []float32{0}))
				chain(g, c.nodes...)
			})
			_, err := m.FindHead()
			var refused *RefusedError
			if !errors.As(err, &refused) || !strings.Contains(refused.Reason, c.reason) {
				t.Fatalf("got %v, want %q", err, c.reason)
			}
			if got := strings.Join(refused.Chain, " "); got != c.chain {
				t.Errorf("chain is %q, want %q", got, c.chain)
			}
		})
	}
	cycle := tail(func(g *Graph) { g.Add("Identity", []string{"logits"}, []string{"logits"}) })
	if _, err := cycle.FindHead(); err == nil {
		t.Error("a cycle was not refused")
	}
}

// TestHiddenName: a value in between that is called like the output is renamed,
// inside branches too.
func TestHiddenName(t *testing.T) {
	branch := &Graph{Name: "branch"}
	branch.Add("Neg", []string{HiddenName}, []string{"n"})
	branch.AddOutput("n", Float32)
	m := tail(func(g *Graph) {
		g.Add("Abs", []string{"h"}, []string{HiddenName})
		g.Add("If", []string{"cond"}, []string{"last"}, GraphAttr("then_branch", branch), GraphAttr("else_branch", branch))
		g.Add("MatMul", []string{"last", "w"}, []string{"logits"})
	})
	h, err := m.FindHead()
	if err != nil {
		t.Fatal(err)
	}
	b, err := m.Backbone(h)
	if err != nil {
		t.Fatal(err)
	}
	ix := newIndex(b.Graph)
	last := ix.producer[HiddenName]
	if last == nil || last.Op != "Identity" || last.Inputs[0] != "last" || ix.uses["dpo_pipe/"+HiddenName] != 2 {
		t.Errorf("output is made by %+v, renamed value has %d uses", last, ix.uses["dpo_pipe/"+HiddenName])
	}
	if branch.Nodes[0].Inputs[0] != HiddenName {
		t.Error("the model itself was changed")
	}
}

// TestQuantisedInFunction: a model function can hide the operation too.
func TestQuantisedInFunction(t *testing.T) {
	m := tail(func(g *Graph) { chain(g, []string{"MatMul", "·", "w"}) })
	m.Graph.Inputs = m.Graph.Inputs[1:]
	if _, err := m.IO(); err != nil {
		t.Fatal(err)
	}
	function := &encoder{}
	function.message(25, func(e *encoder) {
		e.message(7, NewNode("DynamicQuantizeLinear", nil, []string{"q"}).encode)
	})
	m.extra = append(m.extra, function.bytes()...)
	if _, err := m.IO(); err == nil {
		t.Error("accepted")
	}
}

func TestIO(t *testing.T) {
	free := Free("n")
	for _, c := range []struct {
		name string
		in   *ValueInfo
		err  string
	}{
		{"unknown", NewValueInfo("pixel_values", Float32, free), `input "pixel_values" float32 [n] is required and not known`},
		{"embeddings", NewValueInfo("inputs_embeds", Float32, free), `input "inputs_embeds" float32 [n] is required`},
		{"float mask", NewValueInfo("attention_mask", Float32, free, free), `input "attention_mask" has type float32, want [int64 int32]`},
		{"mask of rank 4", NewValueInfo("attention_mask", Int64, free, free, free, free), `has shape [n,n,n,n], want 2 dimensions`},
		{"three rows of positions", NewValueInfo("position_ids", Int64, Fixed(3), free, free), `want 2 dimensions`},
		{"combined by shape", NewValueInfo("past.0.key", Float32, Fixed(2), free, Fixed(4), free, Fixed(8)), "a combined cache"},
		{"combined by name", NewValueInfo("past_key_values.0.key_value", Float32, free), "a combined cache"},
		{"free heads", NewValueInfo("past_key_values.0.key", Float32, free, free, free, Fixed(8)), "fixed heads and head_dim"},
		{"integer cache", NewValueInfo("past_key_values.0.key", Int8, free, Fixed(4), free, Fixed(8)), "has type int8"},
		{"encoder cache", NewValueInfo("past_key_values.0.encoder.key", Float32, free, Fixed(4), free, Fixed(8)), "encoder-decoder"},
		{"decoder ids", NewValueInfo("decoder_input_ids", Int64, free, free), "encoder-decoder"},
		{"decoder cache", NewValueInfo("past_key_values.0.decoder.key", Float32, free, Fixed(4), free, Fixed(8)), ""},
		{"genai cache", NewValueInfo("past_key_0", Float32, free, Fixed(4), free, Fixed(8)), ""},
		{"keep", NewValueInfo("logits_to_keep", Int64), ""},
		{"branch", NewValueInfo("use_cache_branch", Bool, Fixed(1)), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := tail(func(g *Graph) { chain(g, []string{"MatMul", "·", "w"}) })
			m.Graph.Inputs = []*ValueInfo{m.Graph.Inputs[1], c.in}
			_, err := m.IO()
			if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("got %v, want %q", err, c.err)
			}
		})
	}
}

// TestUnknownFields: what the package does not know comes back, at every level.
func TestUnknownFields(t *testing.T) {
	mark := func(s string) []byte {
		return protowire.AppendString(protowire.AppendTag(nil, 1000, protowire.BytesType), s)
	}
	m := sample()
	m.extra = append(m.extra, mark("in model")...)
	m.Opsets[0].extra = mark("in opset")
	m.Graph.extra = mark("in graph")
	m.Graph.Inputs[0].extra = mark("in value")
	m.Graph.Initializers[0].extra = mark("in tensor")
	m.Graph.Nodes[0].extra = mark("in node")
	m.Graph.Nodes[0].Attrs[0].extra = mark("in attribute")
	m.Graph.Nodes[0].Attr("g").G.Nodes[0].extra = mark("in branch")
	again, err := Parse(marshal(t, m))
	if err != nil {
		t.Fatal(err)
	}
	b := string(marshal(t, again.clone()))
	for _, where := range []string{"model", "opset", "graph", "value", "tensor", "node", "attribute", "branch"} {
		if strings.Count(b, "in "+where) != 1 {
			t.Errorf("the field in %s is there %d times", where, strings.Count(b, "in "+where))
		}
	}
}
