// Generates text with transformers.js from a model folder alone, tokenizer and configuration included:
//
//   node generate.mjs NODE_MODULES < job.json
//
// The job is {folder, subfolder, prompts: [text], tokens}, with the folder of model.onnx below the model's; printed is
// for each prompt {prompt: [id], generated: [id], text}, with always the most probable token. The network is not used.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { pathToFileURL } from "node:url";

const installed = createRequire(join(process.argv[2], "x.js")).resolve("@huggingface/transformers");
const { AutoModelForCausalLM, AutoTokenizer, env } = await import(pathToFileURL(installed));
const { folder, subfolder, prompts, tokens } = JSON.parse(readFileSync(0, "utf8"));

env.allowRemoteModels = false;
env.localModelPath = dirname(folder);
const name = basename(folder);
const tokenizer = await AutoTokenizer.from_pretrained(name);
// The type only picks the file's name: that of fp32 is model.onnx, whatever is in it.
const model = await AutoModelForCausalLM.from_pretrained(name, { subfolder, dtype: "fp32", device: "cpu" });
for (const text of prompts) {
  const inputs = tokenizer(text);
  const ids = await model.generate({ ...inputs, max_new_tokens: tokens, do_sample: false });
  const all = ids.tolist()[0].map(Number);
  const prompt = inputs.input_ids.tolist()[0].map(Number);
  const generated = all.slice(prompt.length);
  console.log(JSON.stringify({ prompt, generated, text: tokenizer.decode(generated, { skip_special_tokens: true }) }));
}
