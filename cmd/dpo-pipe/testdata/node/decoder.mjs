// A decoder in onnxruntime-node, with its KV cache or without, for the scripts beside this one.
import { createRequire } from "node:module";
import { join } from "node:path";

// The runtime that is installed in a node_modules folder.
export const runtime = (modules) => createRequire(join(modules, "x.js"))("onnxruntime-node");

// The values of half-precision floats, by their bits; those that are not finite come out large.
const halves = Float64Array.from({ length: 1 << 16 }, (_, bits) => {
  const sign = bits & 0x8000 ? -1 : 1, exp = (bits >> 10) & 31, frac = bits & 1023;
  return exp === 0 ? sign * frac * 2 ** -24 : sign * (1024 + frac) * 2 ** (exp - 25);
});

// Row i of logits [1,T,V] in float64.
export const row = ({ dims: [, , v], type, data }, i) => {
  const z = new Float64Array(data.subarray(i * v, (i + 1) * v));
  return type === "float16" ? z.map((bits) => halves[bits]) : z;
};

// The first of the greatest.
const argmax = (z) => z.reduce((best, x, i) => (x > z[best] ? i : best), 0);

export class Decoder {
  constructor(ort, session) {
    this.ort = ort;
    this.session = session;
    this.inputs = session.inputMetadata;
    this.cached = this.inputs.some(({ name }) => name.startsWith("past_key_values."));
  }

  // An input, by its name: all there is after ids were read before.
  input({ name, type, shape }, ids, before) {
    const integers = (values) =>
      type === "int32" ? Int32Array.from(values) : BigInt64Array.from(values, BigInt);
    const tensor = (values) => new this.ort.Tensor(type, integers(values), [1, values.length]);
    switch (name) {
      case "input_ids": return tensor(ids);
      case "attention_mask": return tensor(new Array(before.length + ids.length).fill(1));
      case "position_ids": return tensor(ids.map((_, i) => before.length + i));
    }
    if (!name.startsWith("past_key_values.")) throw new Error(`input ${name} is not known`);
    const present = before.presents?.[name.replace("past_key_values", "present")];
    const empty = type === "float16" ? new Uint16Array(0) : new Float32Array(0);
    return present ?? new this.ort.Tensor(type, empty, [1, shape[1], 0, shape[3]]);
  }

  // The outputs for ids after what was read before; wanted are the outputs named.
  run(ids, before, wanted) {
    const feeds = Object.fromEntries(this.inputs.map((meta) => [meta.name, this.input(meta, ids, before)]));
    return this.session.run(feeds, wanted);
  }

  // Up to so many tokens after the prompt, always the most probable one; cached reads them one by one after the KV
  // cache of what was read, else all is read again for each.
  async generate(prompt, tokens, stop, cached = this.cached) {
    const out = [];
    let ids = prompt, before = { length: 0 };
    while (out.length < tokens && !stop.includes(out.at(-1))) {
      const presents = await this.run(ids, before, this.session.outputNames);
      const next = argmax(row(presents.logits, ids.length - 1));
      out.push(next);
      if (cached) [before, ids] = [{ length: before.length + ids.length, presents }, [next]];
      else ids = [...ids, next];
    }
    return out;
  }
}

export const open = async (ort, path) => new Decoder(ort, await ort.InferenceSession.create(path));
