//go:build cgo && linux

package main

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/dpo-pipe/dpo-pipe/datasets"
	"github.com/dpo-pipe/dpo-pipe/datasets/encode"
	"github.com/dpo-pipe/dpo-pipe/datasets/refcache"
	"github.com/dpo-pipe/dpo-pipe/datasets/tokenizer"
	"github.com/dpo-pipe/dpo-pipe/models"
	"github.com/dpo-pipe/dpo-pipe/onnx"
	"github.com/dpo-pipe/dpo-pipe/pipeline"
)

// A decoder reads one kind of file that comes from outside.
type decoder struct {
	// kind names it; file is what is broken, a path below the folder of seeds.
	kind, file string
	// decode reads the file in the folder dir to its end.
	decode func(dir string) error
	// sealed files are known by a checksum: what is not the original is refused.
	sealed bool
}

// decoders are all kinds of files that the program reads.
var decoders = []decoder{
	{kind: "parquet", file: "data/rows.parquet", decode: readPairs("data/rows.parquet")},
	{kind: "arrow file", file: "data/rows.arrow", decode: readPairs("data/rows.arrow")},
	{kind: "arrow stream", file: "data/rows.arrows", decode: readPairs("data/rows.arrows")},
	{kind: "jsonl", file: "data/rows.jsonl", decode: readPairs("data/rows.jsonl")},
	{kind: "json", file: "data/rows.json", decode: readPairs("data/rows.json")},
	{kind: "jsonl.gz", file: "data/rows.jsonl.gz", decode: readPairs("data/rows.jsonl.gz")},
	{kind: "jsonl.zst", file: "data/rows.jsonl.zst", decode: readPairs("data/rows.jsonl.zst")},
	{kind: "parquet.gz", file: "data/rows.parquet.gz", decode: readPairs("data/rows.parquet.gz")},
	{kind: "onnx", file: "graph/model.onnx", decode: readModel},
	{kind: "onnx, run", file: "graph/model.onnx", decode: runModel},
	{kind: "tokenizer", file: "model/tokenizer.json", decode: readTokenizer},
	{kind: "tokenizer config", file: "model/tokenizer_config.json", decode: readTexts},
	{kind: "generation config", file: "model/generation_config.json", decode: readTexts},
	{kind: "chat template", file: "model/chat_template.jinja", decode: readTexts},
	{kind: "cache manifest", file: "cache/manifest.json", decode: readCache},
	{kind: "cache head", file: "cache/head.safetensors", decode: readCache, sealed: true},
	{kind: "cache part", file: "cache/part-00000.arrow", decode: readCache, sealed: true},
	{kind: "cache part, unchecked", file: "cache/part-00000.arrow", decode: readRows},
	{kind: "cache log", file: "unfinished/parts.jsonl", decode: readLog},
	{kind: "adapter", file: "run/last/adapter_model.safetensors", decode: readAdapter},
	{kind: "adapter config", file: "run/last/adapter_config.json", decode: readAdapter},
	{kind: "optimizer", file: "run/last/optimizer.safetensors", decode: readOptimizer},
	{kind: "trainer state", file: "run/last/trainer_state.json", decode: inspect("run/last")},
	{kind: "run settings", file: "run/config.yaml", decode: readSettings},
	{kind: "metrics", file: "run/metrics.jsonl", decode: writeReport},
	{kind: "evaluation", file: "run/evaluation.json", decode: writeReport},
	{kind: "completions", file: "run/completions.json", decode: writeReport},
	{kind: "sweep", file: "sweep/sweep.json", decode: inspect("sweep")},
}

func readPairs(file string) func(dir string) error {
	return func(dir string) error {
		r, err := datasets.Open([]string{filepath.Join(dir, file)}, datasets.DefaultOptions())
		if err != nil {
			return err
		}
		defer r.Close()
		var refused error
		for {
			_, err := r.Next(context.Background())
			var row *datasets.RowError
			switch {
			case err == io.EOF:
				return refused
			case errors.As(err, &row):
				refused = err
			case err != nil:
				return err
			}
		}
	}
}

func readModel(dir string) error {
	m, err := onnx.Load(filepath.Join(dir, "graph", "model.onnx"))
	if err != nil {
		return err
	}
	defer m.Close()
	io, err := m.IO()
	if err != nil {
		return err
	}
	head, err := m.FindHead()
	if err != nil {
		return err
	}
	if _, _, err := head.Dense(); err != nil {
		return err
	}
	backbone, err := m.Backbone(head, io.Presents()...)
	if err != nil {
		return err
	}
	if _, err := backbone.Marshal(); err != nil {
		return err
	}
	_, err = m.SHA256()
	return err
}

// runModel gives the model to ONNX Runtime, as the stages do: only one that the program
// could read.
func runModel(dir string) error {
	if err := readModel(dir); err != nil {
		return err
	}
	rt, err := newRuntime(runtimeOptions{provider: "cpu", threads: 1})
	if err != nil {
		return err
	}
	file := filepath.Join(dir, "graph", "model.onnx")
	lm, err := rt.OpenLanguageModel(file)
	if err != nil {
		return err
	}
	defer lm.Close()
	_, err = lm.Logps(context.Background(), []int32{1, 2, 3, 4}, 1)
	return err
}

func readTokenizer(dir string) error {
	data, err := os.ReadFile(filepath.Join(dir, "model", "tokenizer.json"))
	if err != nil {
		return err
	}
	tok, err := tokenizer.Parse(data)
	if err != nil {
		return err
	}
	for _, text := range []string{"", "Grüße an alle 3 Züge, don't  wait", "<s>aé日\U0001f600½ \n\n", strings.Repeat("a1 b", 500)} {
		ids, err := tok.Encode(text)
		if err != nil {
			return err
		}
		tok.Decode(ids, false)
	}
	return nil
}

func readTexts(dir string) error {
	e, err := encode.Open(filepath.Join(dir, "model"), encode.DefaultOptions())
	if err != nil {
		return err
	}
	chat := func(role, content string) []datasets.Message {
		return []datasets.Message{{Role: role, Content: content}}
	}
	for _, p := range []datasets.Pair{
		{Prompt: datasets.Text{Plain: "Grüße an alle 3 Züge"}, Chosen: datasets.Text{Plain: " kurz."}, Rejected: datasets.Text{Plain: " länger, viel länger"}},
		{
			Prompt: datasets.Text{Messages: chat("user", "Where is my kettle?")},
			Chosen: datasets.Text{Messages: chat("assistant", "On its way.")}, Rejected: datasets.Text{Messages: chat("assistant", "No idea.")},
		},
	} {
		pair, err := e.Encode(p)
		if err != nil {
			return err
		}
		e.Decode(pair.Chosen)
	}
	return nil
}

func readCache(dir string) error {
	if _, err := refcache.Describe(filepath.Join(dir, "cache")); err != nil {
		return err
	}
	r, err := refcache.Open(filepath.Join(dir, "cache"))
	if err != nil {
		return err
	}
	defer r.Close()
	if _, err := r.Head(); err != nil {
		return err
	}
	if err := r.Verify(context.Background(), nil); err != nil {
		return err
	}
	return eachRow(r)
}

// readRows reads a cache without its checksums, as what reads a few rows of a large one does.
func readRows(dir string) error {
	r, err := refcache.Open(filepath.Join(dir, "cache"))
	if err != nil {
		return err
	}
	defer r.Close()
	return eachRow(r)
}

func eachRow(r *refcache.Reader) error {
	var row refcache.Row
	for i := range r.Len() {
		if err := r.Row(i, &row); err != nil {
			return err
		}
	}
	return nil
}

func readLog(dir string) error {
	_, err := refcache.ReadManifest(filepath.Join(dir, "unfinished"))
	return err
}

func readAdapter(dir string) error {
	_, _, err := models.ReadAdapter(filepath.Join(dir, "run", "last"))
	return err
}

func readOptimizer(dir string) error {
	head, _, err := models.ReadAdapter(filepath.Join(dir, "run", "last"))
	if err != nil {
		return err
	}
	return models.ReadOptimizer(filepath.Join(dir, "run", "last"), models.NewAdamW(head.Params()))
}

func inspect(folder string) func(dir string) error {
	return func(dir string) error {
		_, err := pipeline.Inspect(context.Background(), filepath.Join(dir, folder), datasets.DefaultOptions(), 3)
		return err
	}
}

func readSettings(dir string) error {
	_, err := pipeline.LoadRunConfig(filepath.Join(dir, "run"))
	return err
}

func writeReport(dir string) error {
	return pipeline.WriteReport(context.Background(), filepath.Join(dir, "run"))
}
