// Package encode turns a pair of texts into token ids.
//
// [Open] reads tokenizer.json and the configuration of a model directory and returns an [Encoder]; [Encoder.Encode]
// turns a [datasets.Pair] into a [Pair] of ids. A row that can't be used is a [*datasets.RowError].
//
// # Boundary
//
// The ids of a pair are those of the whole text prompt+completion wherever the prompt's own ids are how they begin.
// Where a token lies across the boundary, prompt and completion are encoded apart and the pair says so (Apart). A
// prompt that the reader split off itself (PromptImplicit) moves back instead, to the last place that is the end of a
// token in both texts.
//
// # BOS and EOS
//
// BOS is what the tokenizer's post-processor puts in front of a text; where it puts nothing, bos_token if add_bos_token
// asks for it. A text that already begins with it gets no second one. An empty prompt becomes BOS, if the model has one.
// Plain completions are closed with eos_token, or the first eos_token_id of the model's files, unless they end with it.
// Conversations are not: their template writes its own end of turn. What a post-processor adds behind a text is left out.
//
// # Conversations
//
// The prompt is the template's text of the prompt's messages with the generation prompt; a completion is what the text
// of all messages has behind that. Where that text doesn't begin with the prompt's, as with templates that open an
// answer with <think>, the boundary is the end of what they share, if all of the conversation lies before it; else
// the row is refused. With the template "none" messages become lines "role: content", the prompt ends in "assistant:"
// and completions are closed with EOS like plain text. Without a template conversations are refused.
//
// Templates are rendered as Hugging Face does: Jinja2 with trim_blocks and lstrip_blocks, raise_exception,
// strftime_now, tojson and {% generation %}; messages carry role and content, tools and documents are none. gonja runs
// the statements if, for, set, macro, break and continue; the rest is read and evaluated here, because gonja is wrong
// in too many places. Every other statement, filter, test, method or operator is refused, by name and line. The clock
// is not read: strftime_now tells the date of [Options].
//
// # Truncation
//
// keep_start cuts the end of the completions, and refuses a prompt that leaves no room for one token of them; keep_end
// cuts the start of the prompt, which both completions share, by what the longer one needs, and only if a completion
// alone is too long its start. The prompt keeps at least one token: it predicts the completion's first.
//
// So with keep_end two pairs of one prompt may keep different ends of it. PromptKey names the prompt they were made from:
// it hashes the ids before truncation. Of a given prompt these are all its text has, wherever the boundary came to lie;
// of one that the reader split off, those before the boundary.
package encode
