package onnxtest

import (
	"fmt"
	"math/rand/v2"

	"github.com/dpo-pipe/dpo-pipe/onnx"
)

// Form is how the head holds its matrix, or what makes the graph one that is refused.
type Form string

// The head forms.
const (
	MatMul     Form = "matmul"     // an initializer [D,V]
	Gemm       Form = "gemm"       // rows flattened, the tied embedding by transB
	Tied       Form = "tied"       // a Transpose of the embedding
	NBits      Form = "nbits"      // com.microsoft MatMulNBits, 4 bits, blocks of 16
	Dequantize Form = "dequantize" // DequantizeLinear of int8, a scale for each token
	CastTied   Form = "cast"       // the embedding is float16, behind a Cast and a Transpose
)

// The refused forms.
const (
	Combined       Form = "combined"        // past_N holds keys and values together
	Dynamic        Form = "dynamic"         // DynamicQuantizeLinear and MatMulInteger
	EncoderDecoder Form = "encoder-decoder" // an input encoder_hidden_states
	NoLogits       Form = "no-logits"       // the hidden states are the only output
)

// Forms and RefusedForms list them all.
var (
	Forms        = []Form{MatMul, Gemm, Tied, NBits, Dequantize, CastTied}
	RefusedForms = []Form{Combined, Dynamic, EncoderDecoder, NoLogits}
)

// Options say what decoder to make; start from [Default].
type Options struct {
	// V tokens, D width of a hidden state, FF width of the MLP. D must be a
	// multiple of 2·Heads, and of 16 for NBits; Heads a multiple of KVHeads.
	V, D, FF, Layers, Heads, KVHeads int
	Form                             Form
	// Float16 makes weights, arithmetic, cache and logits float16.
	Float16 bool
	// Int32 makes ids, mask and positions int32 rather than int64.
	Int32 bool
	// NoCache leaves out past_key_values and present, NoPositions position_ids.
	NoCache, NoPositions bool
	// KeepLogits adds num_logits_to_keep, a Slice in front of the head.
	KeepLogits bool
	// External puts the weights into model.onnx_data.
	External bool
	// Bias adds one to the head; Scale other than 1 multiplies the logits;
	// Softcap above 0 bounds them.
	Bias           bool
	Scale, Softcap float32
	Seed           uint64
}

// Default is a model of two layers that runs in a millisecond: V 64, D 32.
func Default() Options {
	return Options{V: 64, D: 32, FF: 48, Layers: 2, Heads: 4, KVHeads: 2, Form: Tied, Scale: 1, Seed: 1}
}

// Decoder is a model that was made.
type Decoder struct {
	Options
	embed  []float32 // [V,D]
	layers []layer
	norm   []float32 // [D]
	head   []float32 // [V,D], as the product sees it
	bias   []float32 // [V] or nil
	quant  *quantised
}

// A layer's matrices are [in,out].
type layer struct {
	norm1, norm2   []float32
	q, k, v, o     []float32
	gate, up, down []float32
}

// New draws the weights of a decoder. It panics on sizes that don't fit together.
func New(opt Options) *Decoder {
	if opt.D%(2*opt.Heads) != 0 || opt.Heads%opt.KVHeads != 0 || opt.Form == NBits && opt.D%nbitsBlock != 0 {
		panic(fmt.Sprintf("onnxtest: D %d, Heads %d, KVHeads %d don't fit together", opt.D, opt.Heads, opt.KVHeads))
	}
	d := &Decoder{Options: opt}
	w := &source{rand.New(rand.NewPCG(opt.Seed, 0x6f6e6e78)), opt.Float16}
	d.embed = w.normal(opt.V*opt.D, 0, 0.5)
	if opt.Form == CastTied {
		roundHalf(d.embed)
	}
	kv := opt.KVHeads * d.headDim()
	for range opt.Layers {
		d.layers = append(d.layers, layer{
			norm1: w.normal(opt.D, 1, 0.1), norm2: w.normal(opt.D, 1, 0.1),
			q: w.matrix(opt.D, opt.D), k: w.matrix(opt.D, kv), v: w.matrix(opt.D, kv), o: w.matrix(opt.D, opt.D),
			gate: w.matrix(opt.D, opt.FF), up: w.matrix(opt.D, opt.FF), down: w.matrix(opt.FF, opt.D),
		})
	}
	d.norm = w.normal(opt.D, 1, 0.1)
	d.makeHead(w)
	return d
}

func (d *Decoder) makeHead(w *source) {
	switch d.Form {
	case Tied, Gemm, CastTied:
		d.head = d.embed
	default:
		d.head = w.normal(d.V*d.D, 0, 0.5)
	}
	if d.Bias {
		d.bias = w.normal(d.V, 0, 1)
	}
	switch d.Form {
	case NBits:
		d.quant = quantiseBlocks(d.head, d.V, d.D, d.Float16)
	case Dequantize, Dynamic:
		d.quant = quantiseRows(d.head, d.V, d.D, d.Float16)
	default:
		return
	}
	d.head = d.quant.dequantised
}

func (d *Decoder) headDim() int { return d.D / d.Heads }

// Head returns the vocabulary matrix [V,D] and bias [V] or nil, dequantised: what
// onnx.Head.Dense must find.
func (d *Decoder) Head() (weight, bias []float32) { return d.head, d.bias }

// dtype is the type the graph computes in.
func (d *Decoder) dtype() onnx.DType {
	if d.Float16 {
		return onnx.Float16
	}
	return onnx.Float32
}

// idType is the type of ids, mask and positions.
func (d *Decoder) idType() onnx.DType {
	if d.Int32 {
		return onnx.Int32
	}
	return onnx.Int64
}
