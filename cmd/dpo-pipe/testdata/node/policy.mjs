// Runs decoders in onnxruntime-node, which shares no code with dpo-pipe but the kernels:
//
//   node policy.mjs NODE_MODULES < job.json
//
// The job is {models: [path], sequences: [{ids, from}], prompts: [[id]], tokens, stop: [id]}. Printed is for each
// model {logps: [[nats]], generated: [[id]]}: the log-probs of ids[from:] of every sequence, each given all ids before
// it, and up to so many tokens after each prompt, always the most probable one, read one by one with the KV cache.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { join } from "node:path";

const ort = createRequire(join(process.argv[2], "x.js"))("onnxruntime-node");
const job = JSON.parse(readFileSync(0, "utf8"));

// The values of half-precision floats, by their bits; those that are not finite come out large.
const halves = Float64Array.from({ length: 1 << 16 }, (_, bits) => {
  const sign = bits & 0x8000 ? -1 : 1, exp = (bits >> 10) & 31, frac = bits & 1023;
  return exp === 0 ? sign * frac * 2 ** -24 : sign * (1024 + frac) * 2 ** (exp - 25);
});

// Row i of logits [1,T,V] in float64.
const row = ({ dims: [, , v], type, data }, i) => {
  const z = new Float64Array(data.subarray(i * v, (i + 1) * v));
  return type === "float16" ? z.map((bits) => halves[bits]) : z;
};

const logp = (z, target) => {
  const top = z.reduce((a, b) => Math.max(a, b));
  return z[target] - top - Math.log(z.reduce((sum, x) => sum + Math.exp(x - top), 0));
};

// The first of the greatest.
const argmax = (z) => z.reduce((best, x, i) => (x > z[best] ? i : best), 0);

class Decoder {
  constructor(session) {
    this.session = session;
    this.inputs = session.inputMetadata;
    this.cached = this.inputs.some(({ name }) => name.startsWith("past_key_values."));
  }

  // An input, by its name: all there is after ids were read before.
  input({ name, type, shape }, ids, before) {
    const integers = (values) =>
      type === "int32" ? Int32Array.from(values) : BigInt64Array.from(values, BigInt);
    const tensor = (values) => new ort.Tensor(type, integers(values), [1, values.length]);
    switch (name) {
      case "input_ids": return tensor(ids);
      case "attention_mask": return tensor(new Array(before.length + ids.length).fill(1));
      case "position_ids": return tensor(ids.map((_, i) => before.length + i));
    }
    if (!name.startsWith("past_key_values.")) throw new Error(`input ${name} is not known`);
    const present = before.presents?.[name.replace("past_key_values", "present")];
    const empty = type === "float16" ? new Uint16Array(0) : new Float32Array(0);
    return present ?? new ort.Tensor(type, empty, [1, shape[1], 0, shape[3]]);
  }

  // The outputs for ids after what was read before; wanted are the outputs named.
  run(ids, before, wanted) {
    const feeds = Object.fromEntries(this.inputs.map((meta) => [meta.name, this.input(meta, ids, before)]));
    return this.session.run(feeds, wanted);
  }

  async logps({ ids, from }) {
    const { logits } = await this.run(ids.slice(0, -1), { length: 0 }, ["logits"]);
    return ids.slice(from).map((target, t) => logp(row(logits, from + t - 1), target));
  }

  async generate(prompt, tokens, stop) {
    const out = [];
    let ids = prompt, before = { length: 0 };
    while (out.length < tokens && !stop.includes(out.at(-1))) {
      const presents = await this.run(ids, before, this.session.outputNames);
      const next = argmax(row(presents.logits, ids.length - 1));
      out.push(next);
      if (this.cached) [before, ids] = [{ length: before.length + ids.length, presents }, [next]];
      else ids = [...ids, next];
    }
    return out;
  }
}

for (const path of job.models) {
  const decoder = new Decoder(await ort.InferenceSession.create(path));
  const result = { version: ort.env.versions.node, logps: [], generated: [] };
  for (const sequence of job.sequences) result.logps.push(await decoder.logps(sequence));
  for (const prompt of job.prompts) result.generated.push(await decoder.generate(prompt, job.tokens, job.stop));
  console.log(JSON.stringify(result));
}
