// Package datasets reads preference data: rows with a prompt, the completion
// that was preferred and the one that was not.
//
// [Open] takes files, globs and folders and returns a [Reader] that yields one
// [Pair] at a time in input order, in memory that does not grow with the data.
//
// # Files
//
//	.parquet, .pq           Parquet; only the columns that are needed are read
//	.arrow, .arrows, .ipc,
//	.feather                Arrow IPC, file or stream
//	.jsonl, .ndjson         one JSON object per line
//	.json                   a JSON array of objects, or one object per line
//
// each also with .gz or .zst behind it; Parquet and Arrow files are then first
// decompressed to a temporary file of at most 1000 times their size and 64 MiB. The name says what a folder's files are
// worth opening; the first bytes of a file say what it is.
//
// # Rows
//
// The layout is decided for every row anew:
//
//	prompt     chosen, rejected   meaning
//	string     strings            plain text
//	messages   strings            chat; each completion is one assistant message
//	messages   messages           chat; a repeated prompt is taken off
//	string     messages           chat; the prompt is a user message, repeated or not
//	absent     messages           chat; the prompt is the turns that both share
//	absent     strings            plain text; the prompt is the words that both share
//
// A message is {role, content}, where content is a string or a list of parts
// {type: "text", text} (or {type: "text", value}). Columns are renamed by
// [Columns]; id, weight, scores and source are optional. Ids should be unique: rows
// of one id have one [ID] whatever they say, and are not told apart here.
//
// A row that can't be used is a [*RowError] with a [Reason]; reading goes on
// behind it. Every other error ends the reading.
package datasets
