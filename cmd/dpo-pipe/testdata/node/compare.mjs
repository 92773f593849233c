// Completes prompts with onnxruntime-node and the tokenizer of transformers.js, none of which dpo-pipe uses:
//
//   node compare.mjs NODE_MODULES < job.json
//
// The job is {folder, models: [path], prompts: [text], tokens}: models are the .onnx files, folder holds their tokenizer
// and generation_config.json. Printed is for each prompt [{prompt: [id], cached: [id], reread: [id], text}], one for each
// model: up to so many tokens, always the most probable one, with the KV cache and without, and the text of the first.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { pathToFileURL } from "node:url";
import { open, runtime } from "./decoder.mjs";

const modules = process.argv[2];
const { folder, models, prompts, tokens } = JSON.parse(readFileSync(0, "utf8"));
const installed = createRequire(join(modules, "x.js")).resolve("@huggingface/transformers");
const { AutoTokenizer, env } = await import(pathToFileURL(installed));
env.allowRemoteModels = false;
env.localModelPath = dirname(folder);
const tokenizer = await AutoTokenizer.from_pretrained(basename(folder));
const stop = [JSON.parse(readFileSync(join(folder, "generation_config.json"), "utf8")).eos_token_id].flat();

const decoders = [];
for (const path of models) decoders.push(await open(runtime(modules), path));
for (const text of prompts) {
  const prompt = tokenizer(text).input_ids.tolist()[0].map(Number);
  const line = [];
  for (const decoder of decoders) {
    const cached = await decoder.generate(prompt, tokens, stop, true);
    const reread = await decoder.generate(prompt, tokens, stop, false);
    line.push({ prompt, cached, reread, text: tokenizer.decode(cached, { skip_special_tokens: true }) });
  }
  console.log(JSON.stringify(line));
}
