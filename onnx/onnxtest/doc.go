// Package onnxtest makes small Llama-shaped decoders for tests: an ONNX model
// with seeded random weights in any of the graph and head forms that dpo-pipe meets,
// and beside it the same network in plain float64 Go, which shares no code with the
// graph and so says what ONNX Runtime must compute.
//
// The network has RMSNorm, rotary positions, grouped-query attention and SwiGLU. The
// graph is of standard operations, opset 17, with the inputs and outputs
// Optimum gives: input_ids, attention_mask, position_ids and past_key_values.N.key and
// .value in; logits and present.N.key and .value out.
package onnxtest
