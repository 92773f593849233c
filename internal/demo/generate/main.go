// Command generate writes the texts of the demo: preferences.jsonl, which is
// committed, and corpus.jsonl, which train.py reads and nothing keeps.
//
//	go run ./internal/demo/generate -out DIR
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/dpo-pipe/dpo-pipe/internal/atomicfile"
	"github.com/dpo-pipe/dpo-pipe/internal/demo/corpus"
)

func main() {
	out := flag.String("out", ".", "folder to write preferences.jsonl and corpus.jsonl to")
	flag.Parse()
	if err := run(*out); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

func run(dir string) error {
	pairs := corpus.NewPairs(corpus.Seed, corpus.Pairs)
	err := atomicfile.WriteFile(filepath.Join(dir, "preferences.jsonl"), func(w io.Writer) error {
		return corpus.WritePairs(w, pairs)
	})
	if err != nil {
		return err
	}
	return atomicfile.WriteFile(filepath.Join(dir, "corpus.jsonl"), func(w io.Writer) error {
		return corpus.WriteCorpus(w, corpus.Seed, corpus.Texts, pairs)
	})
}
