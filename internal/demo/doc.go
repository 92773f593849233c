// Package demo is the embedded reference of the demo: a small trained language
// model, its tokenizer and a preference set, all made by this project. Under
// 5 MB in all, so that a fresh clone or a lone binary can do the whole job with
// no download but ONNX Runtime.
//
// The files, under assets:
//
//	model/              a model directory in the layout of Hugging Face Optimum:
//	                    model.onnx (float32, KV cache, position_ids), tokenizer.json,
//	                    config.json, generation_config.json, tokenizer_config.json,
//	                    special_tokens_map.json
//	preferences.jsonl   pairs: id, prompt, chosen, rejected, all strings
//
// Package corpus writes the pairs and the corpus of the model; train/train.py
// trains the model. README.md beside this file holds provenance, figures and how
// to rebuild everything.
package demo
