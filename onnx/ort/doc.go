// Package ort runs ONNX graphs through ONNX Runtime. It is the only package of
// the module that needs cgo.
//
// [FindLibrary] finds the shared library, [Open] makes the one [Runtime] of the
// process, and the runtime opens what the rest of the module works with:
//
//   - [Backbone] turns token ids into the hidden states that feed the LM head;
//   - [Runtime.NewEngine] is the [models.Engine] that does the head's
//     vocabulary-sized arithmetic, forward and backward;
//   - [LM] is a whole model with its own logits, for verification and generation.
//
// Whoever creates an ONNX Runtime value destroys it in the same function. A run
// that is cancelled is told to end and waited for before its values are freed.
//
// Shapes: B sequences of a batch, T tokens, N rows of a head, V tokens of the
// vocabulary, D width of a hidden state, R rank.
package ort
