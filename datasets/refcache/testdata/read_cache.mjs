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
const decode = (vector) => {
  const flat = [];
  for (let i = 0; i < vector.length; i++) {
    const row = vector.get(i);
    const halves = vector.type.children[0].type.precision === 0;
    const raw = halves ? row.data[0].values.subarray(0, row.length) : null;
    for (let j = 0; j < row.length; j++) flat.push(halves ? half(raw[j]) : row.get(j));
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
    else if (field.name.endsWith("_features")) row[field.name] = decode(value);
    else row[field.name] = Array.from(value);
  }
  console.log(JSON.stringify(row));
}
