// Package tokenizer turns text into token ids and back as tokenizer.json says.
//
// It reads the file format of Hugging Face tokenizers for models of type BPE,
// byte-level (GPT-2, Llama 3, Qwen) and SentencePiece-style (Llama 2, Mistral)
// alike. Text goes through these stages:
//
//	added tokens that match raw text → normalizer → added tokens that match
//	normalized text → pre-tokenizer → BPE → ids
//
// What is understood:
//
//	normalizer      NFC NFD NFKC NFKD Lowercase Replace Prepend Strip Sequence
//	pre_tokenizer   ByteLevel Split Digits Punctuation Metaspace Whitespace
//	                WhitespaceSplit Sequence
//	model           BPE: merges as strings or pairs, unk_token, fuse_unk,
//	                byte_fallback, ignore_merges, continuing_subword_prefix,
//	                end_of_word_suffix; a missing type means BPE
//	post_processor  TemplateProcessing ByteLevel Sequence
//	decoder         ByteLevel Metaspace ByteFallback Fuse Replace Strip Sequence
//
// Anything else is refused by name with an [UnsupportedError], a malformed file
// with an error that names the place: a tokenizer that loads gives the ids of
// the reference implementation (testdata/README.md says which version). Three
// things of the file are left to the caller: truncation, padding, and the
// tokens around a sequence, which [Tokenizer.Added] names and
// [Tokenizer.Encode] never adds.
//
// Unicode's tables are those of Go and golang.org/x/text, a later version than
// the reference's: normal forms and lower case of characters that are new since
// then differ from it.
//
// Regular expressions are run by regexp2 in the dialect of .NET; constructs that
// mean something else in the reference's dialect are refused. The patterns of
// the GPT-2, Qwen and Llama-3 families are matched by hand-written scanners that
// tests hold against regexp2.
package tokenizer
