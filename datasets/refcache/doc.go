// Package refcache keeps what one pass of the frozen reference model gives, so that
// training never runs the transformer again: per pair the token ids, the reference's
// token log-probs and the hidden states that feed the LM head.
//
// # Format 1
//
// A cache is a folder:
//
//	manifest.json       identity, shapes, counts, size and SHA-256 of each file
//	head.safetensors    lm_head.weight [V,D] and, if the head has one, lm_head.bias [V], float32
//	part-NNNNN.arrow    rows, Arrow IPC file format, uncompressed, from part-00000 on
//	parts.jsonl         only while incomplete: one checksummed line per whole part
//	shards/             only while several processes make it: a folder of each [Shard]
//	.lock               only while a writer has the folder, or a killed one left it
//
// The columns of a part, none of which holds nulls:
//
//	pair_id                              fixed_size_binary[16]   id or hash of the content
//	prompt_ids, chosen_ids, rejected_ids list<int32>             completion ids include the closing EOS
//	chosen_ref_logps, rejected_ref_logps list<float>             nats per token
//	chosen_features, rejected_features   list<fixed_size_list<halffloat or float>[D]>
//	                                                             row t predicts completion token t
//	weight                               float                   1 unless the data set gives one
//	prompt_key                           fixed_size_binary[16]   the same for all pairs of a prompt, before truncation
//
// Rows are in input order. Every record batch of a part but its last holds
// manifest.batch_rows rows. Features are finite. Nothing in a cache depends on when, or
// in how many attempts, it was written: the same input gives the same bytes.
//
// A cache of other data can be made out of a finished one: [Reader.Join] finds its rows,
// [Writer.LinkPart] takes over its parts, and [CreateSuccessor] and [Replace] put the new one
// in its place, through folders beside it whose names begin with atomicfile.TempPrefix.
//
// Several processes can make one cache: each writes a [Shard] in a folder of its own, which
// [Assemble] verifies and joins.
//
// The identity is everything that can move a number in the rows: a cache is used only
// where the identity is the wanted one ([Manifest.Check]).
package refcache
