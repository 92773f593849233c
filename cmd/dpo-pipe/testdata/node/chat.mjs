// The ids that transformers.js makes of conversations:
//
//   node chat.mjs NODE_MODULES < job.json
//
// The job is {folder, chats: [[{role, content}]]}, with the folder of a tokenizer; printed are for each conversation the
// ids that an answer is generated from.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { pathToFileURL } from "node:url";

const installed = createRequire(join(process.argv[2], "x.js")).resolve("@huggingface/transformers");
const { AutoTokenizer, env } = await import(pathToFileURL(installed));
const { folder, chats } = JSON.parse(readFileSync(0, "utf8"));

env.allowRemoteModels = false;
env.localModelPath = dirname(folder);
const tokenizer = await AutoTokenizer.from_pretrained(basename(folder));
for (const chat of chats) {
  const ids = tokenizer.apply_chat_template(chat, { add_generation_prompt: true, return_tensor: false, return_dict: false });
  console.log(JSON.stringify(ids));
}
