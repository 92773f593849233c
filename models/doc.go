// Package models holds the policy heads: their parameters, forward and backward
// pass, optimizer, schedule and files.
//
// # Who does what
//
//	Engine   the vocabulary-sized arithmetic: gonum here, ONNX Runtime in onnx/ort
//	Head     what is trained; LoRA by default
//	AdamW    moves a head's Params; ClipGradNorm and Schedule.At come before it
//
// A training step on an optimizer batch, cut into micro-batches of any size:
//
//	head.ZeroGrad()
//	for each micro-batch: engine.Load, head.Forward, loss, head.Backward
//	head.Finish
//	norm, err := ClipGradNorm(head.Params(), limit)
//	optimizer.Step(schedule.At(step))
//
// # Files
//
// A checkpoint is a PEFT adapter folder; its files never change their layout:
//
//	adapter_config.json        PEFT's fields; target_modules is ["lm_head"]
//	adapter_model.safetensors  by the head's kind, each name behind base_model.model.lm_head.
//	                           lora     lora_A.weight     F32 [R,D]
//	                                    lora_B.weight     F32 [V,R]
//	                           bias     logit_bias        F32 [V]
//	                           adapter  adapter_A.weight  F32 [R,D]
//	                                    adapter_U.weight  F32 [D,R]
//	optimizer.safetensors      exp_avg.NAME, exp_avg_sq.NAME           F32 as NAME
//	                           step                                    I64 []
//
// Equal heads give equal bytes. A file that can't be used is a [*CheckpointError].
//
// # Numbers
//
// Shapes: N rows (tokens of completions), D hidden, V vocabulary, R rank. Tensors
// are float32; log-probs, their sums, and the optimizer's arithmetic float64. Same seed, same
// machine: same bits, on any number of cores.
package models
