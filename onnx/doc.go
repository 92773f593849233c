// Package onnx reads, edits and writes ONNX model files in pure Go.
//
// It knows a decoder by its inputs and outputs ([Model.IO]), finds the LM head
// behind the output logits ([Model.FindHead]), splits the graph there
// ([Model.Backbone]) and writes a trained head back ([Model.MergeLoRA]).
//
// A file is walked as protobuf wire format; no code is generated. Structs hold
// the fields this package works on; every other field is kept as the bytes it came
// in and written back untouched. The bytes of initializers are slices into the
// mapped file, so that loading a model of many gigabytes costs its graph only.
//
// Shapes: V tokens of the vocabulary, D width of a hidden state, R rank.
package onnx
