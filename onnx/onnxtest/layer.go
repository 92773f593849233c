package onnxtest

import (
	"fmt"
	"math"

	"github.com/dpo-pipe/dpo-pipe/onnx"
)

// layer adds one transformer layer to x [B,T,D].
func (b *builder) layer(i int, x string, p places) string {
	l := b.layers[i]
	name := func(s string) string { return fmt.Sprintf("model.layers.%d.%s.weight", i, s) }
	h := b.rms(x, name("input_layernorm"), l.norm1)
	kv := b.KVHeads * b.headDim()
	q := b.heads(b.op("MatMul", h, b.weight(name("self_attn.q_proj"), l.q, b.D, b.D)), b.Heads)
	k := b.heads(b.op("MatMul", h, b.weight(name("self_attn.k_proj"), l.k, b.D, kv)), b.KVHeads)
	v := b.heads(b.op("MatMul", h, b.weight(name("self_attn.v_proj"), l.v, b.D, kv)), b.KVHeads)
	q, k = b.rotate(q, p), b.rotate(k, p)
	k, v = b.cache(i, k, v)
	a := b.attend(q, b.repeat(k), b.repeat(v), p.mask)
	x = b.op("Add", x, b.op("MatMul", a, b.weight(name("self_attn.o_proj"), l.o, b.D, b.D)))

	h = b.rms(x, name("post_attention_layernorm"), l.norm2)
	gate := b.op("MatMul", h, b.weight(name("mlp.gate_proj"), l.gate, b.D, b.FF))
	up := b.op("MatMul", h, b.weight(name("mlp.up_proj"), l.up, b.D, b.FF))
	h = b.op("Mul", b.op("Mul", gate, b.op("Sigmoid", gate)), up)
	return b.op("Add", x, b.op("MatMul", h, b.weight(name("mlp.down_proj"), l.down, b.FF, b.D)))
}

// heads turns [B,T,n·hd] into [B,n,T,hd].
func (b *builder) heads(x string, n int) string {
	x = b.op("Reshape", x, b.ints(0, 0, int64(n), int64(b.headDim())))
	return b.op("Transpose", x, onnx.Ints("perm", 0, 2, 1, 3))
}

// rotate applies rotary positions to [B,n,T,hd].
func (b *builder) rotate(x string, p places) string {
	half := int64(b.headDim() / 2)
	first := b.op("Slice", x, b.ints(0), b.ints(half), b.ints(3))
	second := b.op("Slice", x, b.ints(half), b.ints(math.MaxInt64), b.ints(3))
	turned := b.op("Concat", b.op("Neg", second), first, onnx.Int("axis", -1))
	return b.op("Add", b.op("Mul", x, p.cos), b.op("Mul", turned, p.sin))
}

// cache puts past keys and values in front and declares the outputs that continue them.
func (b *builder) cache(i int, k, v string) (string, string) {
	if b.NoCache {
		return k, v
	}
	join := func(kind, x string) string {
		return b.named(fmt.Sprintf("present.%d.%s", i, kind), "Concat", b.past(i, kind), x, onnx.Int("axis", 2))
	}
	k, v = join("key", k), join("value", v)
	shape := []onnx.Dim{onnx.Free("batch_size"), onnx.Fixed(b.KVHeads), onnx.Free("total_sequence_length"), onnx.Fixed(b.headDim())}
	if b.Form == Combined {
		both := b.op("Concat", b.op("Unsqueeze", k, b.ints(0)), b.op("Unsqueeze", v, b.ints(0)), onnx.Int("axis", 0))
		b.output(both, fmt.Sprintf("present_%d", i), b.dtype(), append([]onnx.Dim{onnx.Fixed(2)}, shape...)...)
		return k, v
	}
	b.g.AddOutput(k, b.dtype(), shape...)
	b.g.AddOutput(v, b.dtype(), shape...)
	return k, v
}

// repeat gives every query head its keys or values: [B,KVHeads,S,hd] → [B,Heads,S,hd].
func (b *builder) repeat(x string) string {
	group := int64(b.Heads / b.KVHeads)
	x = b.op("Expand", b.op("Unsqueeze", x, b.ints(2)), b.ints(1, 1, group, 1, 1))
	return b.op("Reshape", x, b.ints(0, int64(b.Heads), -1, int64(b.headDim())))
}

// attend returns softmax(q kᵀ/√hd + mask) v as [B,T,D].
func (b *builder) attend(q, k, v, mask string) string {
	scores := b.op("MatMul", q, b.op("Transpose", k, onnx.Ints("perm", 0, 1, 3, 2)))
	scores = b.op("Mul", scores, b.scalar(1/math.Sqrt(float64(b.headDim()))))
	weights := b.op("Softmax", b.op("Add", scores, mask), onnx.Int("axis", -1))
	out := b.op("Transpose", b.op("MatMul", weights, v), onnx.Ints("perm", 0, 2, 1, 3))
	return b.op("Reshape", out, b.ints(0, 0, int64(b.D)))
}
