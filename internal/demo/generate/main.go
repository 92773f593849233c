// Command generate writes the texts of the demo to a folder: corpus.jsonl, which
// train.py reads and nothing keeps, and, given the tokenizer that train.py made of
// it, preferences.jsonl, which is committed. The tokenizer only counts: the replies
// of a pair are matched in length.
//
//	go run ./internal/demo/generate -out DIR [-tokenizer tokenizer.json]
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/dpo-pipe/dpo-pipe/datasets/tokenizer"
	"github.com/dpo-pipe/dpo-pipe/internal/atomicfile"
	"github.com/dpo-pipe/dpo-pipe/internal/demo/corpus"
)

func main() {
	out := flag.String("out", ".", "folder to write to")
	tok := flag.String("tokenizer", "", "tokenizer.json to count tokens with; without it no preferences are written")
	flag.Parse()
	if err := run(*out, *tok); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

func run(dir, tokenizerPath string) error {
	var prompts map[string]bool
	err := atomicfile.WriteFile(filepath.Join(dir, "corpus.jsonl"), func(w io.Writer) (err error) {
		prompts, err = corpus.WriteCorpus(w, corpus.Seed, corpus.Texts)
		return err
	})
	if err != nil || tokenizerPath == "" {
		return err
	}
	tok, err := tokenizer.Load(tokenizerPath)
	if err != nil {
		return err
	}
	count := func(text string) int {
		ids, encodeErr := tok.Encode(text)
		if encodeErr != nil && err == nil {
			err = encodeErr
		}
		return len(ids)
	}
	pairs := corpus.NewPairs(corpus.Seed, corpus.Pairs, prompts, count)
	if err != nil {
		return err
	}
	return atomicfile.WriteFile(filepath.Join(dir, "preferences.jsonl"), func(w io.Writer) error {
		return corpus.WritePairs(w, pairs)
	})
}
