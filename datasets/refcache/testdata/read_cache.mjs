// Prints the rows of one part of a reference cache as JSON lines, read by the apache-arrow
// package: node read_cache.mjs NODE_MODULES PART
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { join } from "node:path";

const [modules, part] = process.argv.slice(2);
const { tableFromIPC } = createRequire(join(modules, "x.js"))("apache-arrow");
const table = tableFromIPC(readFileSync(part));

// The value of a half-precision float, from its bits: an oracle must not depend on the package's own conversion.
const half = (bits) => {
  const sign = bits & 0x8000 ? -1 : 1, exp = (bits >> 10) & 31, frac = bits & 1023;
  if (exp === 0) return sign * frac * 2 ** -24;
  return sign * (1024 + frac) * 2 ** (exp - 25);
};
// The value of a bfloat16, from its bits.
const bfloat16 = (bits) => new Float32Array(Uint32Array.of(bits << 16).buffer)[0];
// How the values of a column of features are read: 16 bits are a half, or what the column's metadata says.
const reader = (field) => {
  if (field.metadata.get("dtype") === "bfloat16") return bfloat16;
  return field.type.children[0].type.children[0].type.precision === 0 ? half : null;
};
const decode = (vector, value) => {
  const flat = [];
  for (let i = 0; i < vector.length; i++) {
    const row = vector.get(i);
    const raw = value ? row.data[0].values.subarray(0, row.length) : null;
    for (let j = 0; j < row.length; j++) flat.push(value ? value(raw[j]) : row.get(j));
  }
  return flat;
};
console.log(JSON.stringify({ schema: table.schema.fields.map((f) => [f.name, String(f.type)]), rows: table.numRows }));
for (let i = 0; i < table.numRows; i++) {
  const row = {};
  for (const field of table.schema.fields) {
    const value = table.getChild(field.name).get(i);
    if (field.name === "pair_id" || field.name === "prompt_key") row[field.name] = Buffer.from(value).toString("hex");
    else if (field.name === "weight") row[field.name] = value;
    else if (field.name.endsWith("_features")) row[field.name] = decode(value, reader(field));
    else row[field.name] = Array.from(value);
  }
  console.log(JSON.stringify(row));
}
