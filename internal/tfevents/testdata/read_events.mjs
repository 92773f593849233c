// Prints the scalars of an event file as JSON, a line for each: read with npm's
// tfrecord, which checks both checksums of a record, and protobufjs.
// Usage: node read_events.mjs NODE_MODULES FILE
import { createRequire } from "node:module";
import path from "node:path";

const require = createRequire(path.join(process.argv[2], "any.js"));
const { RecordReader } = require("tfrecord/lib/record_reader");
const { Event } = require("protobufjs").parse(`syntax = "proto3";
  message Value { string tag = 1; float simple_value = 2; }
  message Summary { repeated Value value = 1; }
  message Event { double wall_time = 1; int64 step = 2; string file_version = 3; Summary summary = 5; }`,
  { keepCase: true }).root;

const reader = await RecordReader.create(process.argv[3]);
for (let record; (record = await reader.readRecord()) !== null; ) {
  const e = Event.decode(record);
  if (e.file_version) console.log(JSON.stringify({ version: e.file_version, time: e.wall_time }));
  for (const v of e.summary?.value ?? []) {
    console.log(JSON.stringify({ time: e.wall_time, step: Number(e.step), tag: v.tag, value: v.simple_value }));
  }
}
