// Runs decoders in onnxruntime-node, which shares no code with dpo-pipe but the kernels:
//
//   node policy.mjs NODE_MODULES < job.json
//
// The job is {models: [path], sequences: [{ids, from}], prompts: [[id]], tokens, stop: [id]}. Printed is for each
// model {logps: [[nats]], generated: [[id]]}: the log-probs of ids[from:] of every sequence, each given all ids before
// it, and up to so many tokens after each prompt, always the most probable one, read one by one with the KV cache.
import { readFileSync } from "node:fs";
import { open, row, runtime } from "./decoder.mjs";

const ort = runtime(process.argv[2]);
const job = JSON.parse(readFileSync(0, "utf8"));

const logp = (z, target) => {
  const top = z.reduce((a, b) => Math.max(a, b));
  return z[target] - top - Math.log(z.reduce((sum, x) => sum + Math.exp(x - top), 0));
};

const logps = async (decoder, { ids, from }) => {
  const { logits } = await decoder.run(ids.slice(0, -1), { length: 0 }, ["logits"]);
  return ids.slice(from).map((target, t) => logp(row(logits, from + t - 1), target));
};

for (const path of job.models) {
  const decoder = await open(ort, path);
  const result = { version: ort.env.versions.node, logps: [], generated: [] };
  for (const sequence of job.sequences) result.logps.push(await logps(decoder, sequence));
  for (const prompt of job.prompts) result.generated.push(await decoder.generate(prompt, job.tokens, job.stop));
  console.log(JSON.stringify(result));
}
