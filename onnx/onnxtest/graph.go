package onnxtest

import (
	"fmt"
	"math"

	"github.com/dpo-pipe/dpo-pipe/onnx"
	"github.com/x448/float16"
)

// A builder writes the decoder as a graph.
type builder struct {
	*Decoder
	m *onnx.Model
	g *onnx.Graph
	n int // values named so far
}

// ONNX returns the decoder as an ONNX model.
func (d *Decoder) ONNX() *onnx.Model {
	m := onnx.NewModel("decoder", onnx.Opset{Version: 17}, onnx.Opset{Domain: "com.microsoft", Version: 1})
	b := &builder{Decoder: d, m: m, g: m.Graph}
	b.inputs()
	x := b.embedding()
	if d.Form == EncoderDecoder {
		x = b.op("Add", x, b.op("ReduceMean", "encoder_hidden_states", onnx.Ints("axes", 1)))
	}
	p := b.positions()
	for i := range d.layers {
		x = b.layer(i, x, p)
	}
	b.head(b.rms(x, "model.norm.weight", d.norm))
	return m
}

// op adds a node and returns its output; strings are inputs, the rest attributes.
func (b *builder) op(op string, args ...any) string {
	b.n++
	return b.named(fmt.Sprintf("/%s_%d", op, b.n), op, args...)
}

// named adds a node whose output has a name of its own.
func (b *builder) named(out, op string, args ...any) string {
	var inputs []string
	var attrs []*onnx.Attr
	for _, a := range args {
		switch a := a.(type) {
		case string:
			inputs = append(inputs, a)
		case *onnx.Attr:
			attrs = append(attrs, a)
		default:
			panic(fmt.Sprintf("onnxtest: argument %v of %s", a, op))
		}
	}
	b.g.Add(op, inputs, []string{out}, attrs...)
	return out
}

// output gives a value the name of a declared output.
func (b *builder) output(value, name string, dt onnx.DType, shape ...onnx.Dim) {
	b.g.Add("Identity", []string{value}, []string{name})
	b.g.AddOutput(name, dt, shape...)
}

// tensor makes a float constant of the type the graph computes in.
func (b *builder) tensor(name string, v []float32, dims ...int64) *onnx.Tensor {
	if b.Float16 {
		return half(name, v, dims...)
	}
	return onnx.Float32Tensor(name, v, dims...)
}

func half(name string, v []float32, dims ...int64) *onnx.Tensor {
	data := make([]byte, 2*len(v))
	for i, x := range v {
		bits := float16.Fromfloat32(x).Bits()
		data[2*i], data[2*i+1] = byte(bits), byte(bits>>8)
	}
	return onnx.NewTensor(name, onnx.Float16, dims, data)
}

// weight adds an initializer [dims] unless it is there, and returns its name.
func (b *builder) weight(name string, v []float32, dims ...int) string {
	if b.g.Initializer(name) == nil {
		var d []int64
		for _, n := range dims {
			d = append(d, int64(n))
		}
		b.g.AddInitializer(b.tensor(name, v, d...))
	}
	return name
}

// scalar adds a float constant of the type the graph computes in.
func (b *builder) scalar(x float64) string {
	b.n++
	return b.g.AddInitializer(b.tensor(fmt.Sprintf("scalar_%d", b.n), []float32{float32(x)}))
}

// ints adds an int64 constant, one-dimensional.
func (b *builder) ints(v ...int64) string {
	b.n++
	return b.g.AddInitializer(onnx.Int64Tensor(fmt.Sprintf("ints_%d", b.n), v, int64(len(v))))
}

func (b *builder) cast(value string, to onnx.DType) string {
	return b.op("Cast", value, onnx.Int("to", int64(to)))
}

func (b *builder) inputs() {
	batch, tokens, total := onnx.Free("batch_size"), onnx.Free("sequence_length"), onnx.Free("total_sequence_length")
	past, hd := onnx.Free("past_sequence_length"), b.headDim()
	b.g.AddInput("input_ids", b.idType(), batch, tokens)
	b.g.AddInput("attention_mask", b.idType(), batch, total)
	if !b.NoPositions {
		b.g.AddInput("position_ids", b.idType(), batch, tokens)
	}
	for i := range b.Layers {
		switch {
		case b.NoCache:
		case b.Form == Combined:
			b.g.AddInput(fmt.Sprintf("past_%d", i), b.dtype(), onnx.Fixed(2), batch, onnx.Fixed(b.KVHeads), past, onnx.Fixed(hd))
		default:
			for _, kind := range []string{"key", "value"} {
				b.g.AddInput(pastName(i, kind), b.dtype(), batch, onnx.Fixed(b.KVHeads), past, onnx.Fixed(hd))
			}
		}
	}
	if b.KeepLogits {
		b.g.AddInput("num_logits_to_keep", onnx.Int64)
	}
	if b.Form == EncoderDecoder {
		b.g.AddInput("encoder_hidden_states", b.dtype(), batch, onnx.Free("encoder_length"), onnx.Fixed(b.D))
	}
}

func pastName(layer int, kind string) string {
	return fmt.Sprintf("past_key_values.%d.%s", layer, kind)
}

// places are what attention needs to know of positions.
type places struct{ cos, sin, mask string }

// positions builds cos and sin [B,1,T,hd] and the additive mask [B,1,T,P+T].
func (b *builder) positions() places {
	tokens := b.op("Gather", b.op("Shape", "input_ids"), b.ints(1)) // [1]
	total := tokens
	past := b.ints(0)
	if !b.NoCache {
		past = b.op("Gather", b.op("Shape", b.past(0, "key")), b.ints(2))
		total = b.op("Add", past, tokens)
	}
	axis0, one := b.ints(0), b.op("Squeeze", b.ints(1))
	scalar := func(v string) string { return b.op("Squeeze", v, axis0) }
	rows := b.op("Range", scalar(past), scalar(total), one)         // [T]
	columns := b.op("Range", scalar(b.ints(0)), scalar(total), one) // [P+T]
	ids := "position_ids"
	if b.NoPositions {
		ids = b.op("Unsqueeze", rows, axis0)
	}
	causal := b.op("LessOrEqual", b.op("Unsqueeze", columns, axis0), b.op("Unsqueeze", rows, b.ints(1)))
	real := b.op("Unsqueeze", b.cast("attention_mask", onnx.Bool), b.ints(1, 2))
	const masked = -10000 // float16 holds it, and exp of it is 0
	mask := b.op("Where", b.op("And", causal, real), b.scalar(0), b.scalar(masked))
	cos, sin := b.rotary(ids)
	return places{cos, sin, mask}
}

// rotary builds cos and sin of the angles of position ids [B,T].
func (b *builder) rotary(ids string) (cos, sin string) {
	hd := b.headDim()
	freqs := make([]float32, hd/2)
	for i := range freqs {
		freqs[i] = float32(math.Pow(ropeTheta, -2*float64(i)/float64(hd)))
	}
	inv := b.g.AddInitializer(onnx.Float32Tensor("inv_freq", freqs, int64(hd/2)))
	angle := b.op("Mul", b.op("Unsqueeze", b.cast(ids, onnx.Float32), b.ints(1, 3)), inv)
	angle = b.op("Concat", angle, angle, onnx.Int("axis", -1))
	cos, sin = b.op("Cos", angle), b.op("Sin", angle)
	if b.Float16 {
		cos, sin = b.cast(cos, onnx.Float16), b.cast(sin, onnx.Float16)
	}
	return cos, sin
}

// past returns the cached keys or values of a layer [B,KVHeads,P,hd].
func (b *builder) past(layer int, kind string) string {
	if b.Form != Combined {
		return pastName(layer, kind)
	}
	half := map[string]int64{"key": 0, "value": 1}[kind]
	index := b.op("Squeeze", b.ints(half))
	return b.op("Gather", fmt.Sprintf("past_%d", layer), index, onnx.Int("axis", 0))
}

// rms normalises in float32, as exporters of float16 models do. It is in the operators that they
// use, for which ONNX Runtime has one of its own.
func (b *builder) rms(x, name string, w []float32) string {
	wide := x
	if b.Float16 {
		wide = b.cast(x, onnx.Float32)
	}
	b.n++
	eps := b.g.AddInitializer(onnx.Float32Tensor(fmt.Sprintf("eps_%d", b.n), []float32{normEps}))
	two := b.g.AddInitializer(onnx.Float32Tensor(fmt.Sprintf("two_%d", b.n), []float32{2}))
	mean := b.op("ReduceMean", b.op("Pow", wide, two), onnx.Ints("axes", -1))
	normal := b.op("Div", wide, b.op("Sqrt", b.op("Add", mean, eps)))
	if b.Float16 {
		normal = b.cast(normal, onnx.Float16)
	}
	return b.op("Mul", normal, b.weight(name, w, len(w)))
}
