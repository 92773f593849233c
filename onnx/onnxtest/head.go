package onnxtest

import (
	"math"

	"github.com/dpo-pipe/dpo-pipe/onnx"
)

// head adds what leads from the last norm to the output.
func (b *builder) head(h string) {
	batch, tokens := onnx.Free("batch_size"), onnx.Free("sequence_length")
	if b.Form == NoLogits {
		b.output(h, "last_hidden_state", b.dtype(), batch, tokens, onnx.Fixed(b.D))
		return
	}
	if b.KeepLogits {
		start := b.op("Unsqueeze", b.op("Neg", "num_logits_to_keep"), b.ints(0))
		h = b.op("Slice", h, start, b.ints(math.MaxInt64), b.ints(1))
	}
	z := b.product(h)
	if b.bias != nil && b.Form != Gemm {
		z = b.op("Add", z, b.weight("lm_head.bias", b.bias, b.V))
	}
	if b.Scale != 1 {
		z = b.op("Mul", z, b.scalar(float64(b.Scale)))
	}
	if b.Softcap > 0 {
		z = b.op("Div", z, b.scalar(float64(b.Softcap)))
		z = b.op("Mul", b.op("Tanh", z), b.scalar(float64(b.Softcap)))
	}
	b.output(z, "logits", b.dtype(), batch, tokens, onnx.Fixed(b.V))
}

// product multiplies h [B,T,D] by the vocabulary matrix in the form asked for.
func (b *builder) product(h string) string {
	switch b.Form {
	case Tied:
		return b.op("MatMul", h, b.op("Transpose", "model.embed_tokens.weight", onnx.Ints("perm", 1, 0)))
	case CastTied:
		wide := b.cast("model.embed_tokens.weight_half", b.dtype())
		return b.op("MatMul", h, b.op("Transpose", wide, onnx.Ints("perm", 1, 0)))
	case Gemm:
		return b.gemm(h)
	case NBits:
		return b.nbits(h)
	case Dequantize:
		return b.op("MatMul", h, b.dequantize())
	case Dynamic:
		return b.dynamic(h)
	}
	return b.op("MatMul", h, b.weight("lm_head.weight", turned(b.Decoder.head, b.V, b.D), b.D, b.V))
}

// embedding looks the ids up; CastTied keeps its table in float16.
func (b *builder) embedding() string {
	if b.Form != CastTied {
		return b.op("Gather", b.weight("model.embed_tokens.weight", b.embed, b.V, b.D), "input_ids")
	}
	table := b.g.AddInitializer(half("model.embed_tokens.weight_half", b.embed, int64(b.V), int64(b.D)))
	return b.cast(b.op("Gather", table, "input_ids"), b.dtype())
}

// gemm flattens to rows, as Gemm takes matrices, and restores the shape.
func (b *builder) gemm(h string) string {
	rows := b.op("Reshape", h, b.ints(-1, int64(b.D)))
	args := []any{rows, "model.embed_tokens.weight"}
	if b.bias != nil {
		args = append(args, b.weight("lm_head.bias", b.bias, b.V))
	}
	z := b.op("Gemm", append(args, onnx.Int("transB", 1))...)
	lead := b.op("Slice", b.op("Shape", h), b.ints(0), b.ints(2), b.ints(0))
	return b.op("Reshape", z, b.op("Concat", lead, b.ints(int64(b.V)), onnx.Int("axis", 0)))
}

// nbits stores two 4-bit levels in a byte, the first in the low half.
func (b *builder) nbits(h string) string {
	v, blocks := int64(b.V), int64(b.D/nbitsBlock)
	pack := func(levels []int8, row int) []byte {
		var out []byte
		for ; len(levels) > 0; levels = levels[row:] {
			for i := 0; i < row; i += 2 {
				pair := byte(levels[i])
				if i+1 < row {
					pair |= byte(levels[i+1]) << 4
				}
				out = append(out, pair)
			}
		}
		return out
	}
	zeros := pack(b.quant.zeros, int(blocks))
	b.g.AddInitializer(onnx.NewTensor("lm_head.weight_Q4", onnx.Uint8, []int64{v, blocks, nbitsBlock / 2}, pack(b.quant.levels, nbitsBlock)))
	b.g.AddInitializer(b.tensor("lm_head.weight_scales", b.quant.scales, v*blocks))
	b.g.AddInitializer(onnx.NewTensor("lm_head.weight_zp", onnx.Uint8, []int64{int64(len(zeros))}, zeros))
	z := b.op("MatMulNBits", h, "lm_head.weight_Q4", "lm_head.weight_scales", "lm_head.weight_zp",
		onnx.Int("K", int64(b.D)), onnx.Int("N", v), onnx.Int("bits", 4), onnx.Int("block_size", nbitsBlock))
	b.g.Nodes[len(b.g.Nodes)-1].In("com.microsoft")
	return z
}

// dequantize stores int8 [D,V] with a scale and a zero point for each token.
func (b *builder) dequantize() string {
	q, s, z := b.int8Head()
	w := b.op("DequantizeLinear", q, s, z, onnx.Int("axis", 1))
	if b.Float16 {
		return b.cast(w, onnx.Float16)
	}
	return w
}

func (b *builder) int8Head() (levels, scales, zeros string) {
	bytes := make([]byte, len(b.quant.levels))
	for i, level := range b.quant.levels {
		bytes[i%b.D*b.V+i/b.D] = byte(level)
	}
	zero := make([]byte, b.V)
	for i, z := range b.quant.zeros {
		zero[i] = byte(z)
	}
	levels = b.g.AddInitializer(onnx.NewTensor("lm_head.weight_int8", onnx.Int8, []int64{int64(b.D), int64(b.V)}, bytes))
	// Before opset 19 scales are float32 whatever the graph computes in.
	scales = b.g.AddInitializer(onnx.Float32Tensor("lm_head.weight_scale", b.quant.scales, int64(b.V)))
	zeros = b.g.AddInitializer(onnx.NewTensor("lm_head.weight_zero", onnx.Int8, []int64{int64(b.V)}, zero))
	return levels, scales, zeros
}

// dynamic quantises the hidden states with one scale for the whole batch.
func (b *builder) dynamic(h string) string {
	q, s, z := b.int8Head()
	b.g.Add("DynamicQuantizeLinear", []string{h}, []string{"/h_q", "/h_scale", "/h_zero"})
	sum := b.op("MatMulInteger", "/h_q", q, "/h_zero", z)
	return b.op("Mul", b.cast(sum, onnx.Float32), b.op("Mul", "/h_scale", s))
}

// turned returns the [cols,rows] transpose of m [rows,cols].
func turned(m []float32, rows, cols int) []float32 {
	out := make([]float32, len(m))
	for i, x := range m {
		out[i%cols*rows+i/cols] = x
	}
	return out
}
